# syntax of every builder since Docker 17.09: no mounts, no here-documents, so that docker-compose 1.29 builds it as well.
#
#   docker build --target api    --tag image-api .
#   docker build --target worker --tag image-worker .
#   docker build --target devstack --tag image-devstack .     # provisioning and the stand-ins, for a laptop
#
# See docs/containers.md; the choices are argued in docs/adr/0010-containers.md.

# What compiles. Its glibc must not be newer than the one of BASE.
ARG RUST=rust:1.95-slim-bookworm
# What runs. The final stages only copy files into it: any image with glibc 2.36 or later will do.
ARG BASE=debian:bookworm-slim
# Where the certificate authorities come from: Debian or Ubuntu, for a base that has no apt-get.
ARG CERTIFICATES=${BASE}
# Where the binaries come from: the stage `build`, or an image with the three of them in /out.
ARG BINARIES=build

FROM ${RUST} AS chef
# Debug builds: a minute less, and nothing of them is shipped.
RUN cargo install --debug --locked cargo-chef@0.1.78 cargo-auditable@0.7.7
WORKDIR /src

# The recipe is what the manifests say, so it is the same for every change of a source file.
FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

FROM chef AS build
COPY --from=plan /recipe.json /recipe.json
# Every dependency, and nothing of ours: this layer is made again when a manifest or the lock file changes.
RUN cargo chef cook --profile dist --locked --package api --package worker --package devstack --recipe-path /recipe.json
COPY . .
# One selection of packages, the one that the tests run with: one set of features, and each dependency is compiled once
# (docs/adr/0006). `auditable` puts the list of all crates into the binaries: `cargo audit bin`, syft and trivy read it.
RUN cargo auditable build --profile dist --locked --package api --package worker --package devstack --bins \
 && mkdir /out \
 && cp target/dist/image-api target/dist/image-worker target/dist/dev /out/

FROM ${BINARIES} AS binaries

FROM ${CERTIFICATES} AS certificates
# Debian's slim image has none. Only the file is taken: with its package would come openssl. It is not pinned, because
# an old list of authorities is worse than a new one.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/*

# A number, so that an orchestrator sees that it is not root, and no name, so that nothing has to be written.
FROM ${BASE} AS base
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.documentation="docs/containers.md"

FROM base AS api
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="image-api" \
      org.opencontainers.image.description="Accepts image jobs over HTTP, puts them into SQS and answers polls." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=binaries /out/image-api /usr/local/bin/image-api
# Loopback is the container's own: nothing would reach it. Publish 8080; 9100 is for the scraper and not for the world.
ENV LISTEN_ADDR=0.0.0.0:8080 \
    ADMIN_ADDR=0.0.0.0:9100
EXPOSE 8080 9100
# Alive and not ready, here and below: some orchestrators replace what fails this check, and a process that is not ready
# is to be left alone (service/src/health.rs). Compose, which only waits for it, asks for readiness instead.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["image-api", "health", "--live"]
ENTRYPOINT ["image-api"]

FROM base AS worker
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="image-worker" \
      org.opencontainers.image.description="Takes image jobs from SQS, generates with Amazon Bedrock, renders, publishes to S3." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=binaries /out/image-worker /usr/local/bin/image-worker
ENV ADMIN_ADDR=0.0.0.0:9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["image-worker", "health", "--live"]
ENTRYPOINT ["image-worker"]

# For a laptop and for tests: makes the queues and the bucket, and stands in for Bedrock and CloudFront.
FROM base AS devstack
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="image-devstack" \
      org.opencontainers.image.description="Provisioning of an emulator of AWS, and stand-ins for Bedrock and CloudFront." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=binaries /out/dev /usr/local/bin/dev
ENV ADMIN_ADDR=0.0.0.0:9100
EXPOSE 8081 9100 9325
# Each command serves on a port of its own: compose says which one to ask.
HEALTHCHECK NONE
ENTRYPOINT ["dev"]
