# Prometheus as `prom/prometheus` has it, for a test where no registry can be reached: an older release, from Debian.
ARG BASE
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends prometheus \
 && rm -rf /var/lib/apt/lists/*
# The health check of the compose file is a command that Debian's release does not have yet.
# hadolint ignore=SC2016
RUN printf '%s\n' \
      '#!/bin/bash' \
      '[ "$*" = "check ready --url=http://127.0.0.1:9090" ] || exec /usr/bin/promtool "$@"' \
      'exec 3<>/dev/tcp/127.0.0.1/9090 || exit 1' \
      'printf "GET /-/ready HTTP/1.0\r\n\r\n" >&3' \
      'read -r -t 2 _ status _ <&3 && [ "$status" = 200 ]' >/usr/local/bin/promtool \
 && chmod 755 /usr/local/bin/promtool
# As the published image: nobody, who owns the folder that a new volume takes its owner from.
RUN mkdir /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
WORKDIR /prometheus
EXPOSE 9090
ENTRYPOINT ["prometheus"]
