# MiniStack as `ministackorg/ministack` has it, for a test where no registry can be reached: the release from PyPI, which
# the caller has unpacked beside this file.
ARG BASE
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY site-packages /opt/ministack
ENV PYTHONPATH=/opt/ministack \
    PYTHONUNBUFFERED=1
EXPOSE 4566
# As the published image: root, of which compose leaves nothing but the number.
ENTRYPOINT ["python3", "-m", "ministack"]
