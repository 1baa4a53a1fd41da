# The services of the table, all of them: Envoy with Python inside. Which one a container is, says the configuration that it is given.
#
#   docker build -f deploy/docker/services.Dockerfile -t backend-services .
#
# BASE is any image with Python 3.11 to 3.14, its shared library, pip and venv. For a package index that is not the public one:
# --secret id=pip,src=pip.conf and --secret id=ca,src=bundle.pem (docs/deploy.md).
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY deploy/docker/build.lock deploy/docker/services.lock deploy/docker/with_index ./
# Prints how this Python was configured: one with --enable-optimizations and --with-lto takes 6 to 12 % less CPU for a request.
RUN python3 -c "import sys, sysconfig; print(sys.version, sysconfig.get_config_var('CONFIG_ARGS'))" \
 && python3 -m venv /build/tools && python3 -m venv --without-pip /app
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    ./with_index /build/tools/bin/python -m pip install --quiet --no-compile --require-hashes -r build.lock \
 && ./with_index /build/tools/bin/python -m pip --python /app/bin/python install --quiet --no-compile --require-hashes -r services.lock
COPY libs libs
COPY services services
RUN /build/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels ./libs/contracts ./libs/chassis ./services/* \
 && /build/tools/bin/python -m pip --python /app/bin/python install --quiet --no-compile --no-deps --no-index wheels/*.whl \
 # By one name, whatever Python's version: what Envoy's configuration says.
 && cd /app && ln -s lib/python3.*/site-packages/pyvoy/_pyvoy.abi3.so pyvoy.so
COPY deploy/docker/runtime_root.py ./
RUN python3 runtime_root.py /root-of-services /app

FROM scratch
COPY --from=build /root-of-services /
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="backend-services" \
      org.opencontainers.image.description="The services of the backend: Envoy with Python inside" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/app/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt LC_ALL=C.UTF-8 PYTHONUTF8=1 PYTHONDONTWRITEBYTECODE=1
# Sockets are below run/, from here; /run is mounted in memory, for the root is read-only.
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["/app/bin/python", "-m", "chassis.probe"]
ENTRYPOINT ["/app/bin/python", "-m", "chassis.launch"]
CMD ["/etc/backend/envoy.yaml"]
