# backend-mesh: what is done before services start and beside them. It makes secrets and certificates, renders configurations, brings
# databases and streams up to date, and renews certificates (docs/deploy.md).
#
#   docker build -f deploy/docker/operations.Dockerfile -t backend-operations .
#
# The arguments and secrets are those of services.Dockerfile.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY deploy/docker/build.lock deploy/docker/operations.lock deploy/docker/with_index ./
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /app
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    ./with_index /build/tools/bin/python -m pip install --quiet --no-compile --require-hashes -r build.lock \
 && ./with_index /build/tools/bin/python -m pip --python /app/bin/python install --quiet --no-compile --require-hashes -r operations.lock
COPY libs libs
COPY services services
RUN /build/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels ./libs/contracts ./libs/chassis ./libs/mesh \
 && /build/tools/bin/python -m pip --python /app/bin/python install --quiet --no-compile --no-deps --no-index wheels/*.whl \
 # The migrations of every service with a database; `backend-mesh migrate` finds them from its working directory.
 && for schema in services/*/db; do mkdir -p "/srv/backend/$schema" && cp -r "$schema/migrations" "/srv/backend/$schema/"; done
COPY deploy/docker/runtime_root.py ./
# A volume of Compose begins as the directory that it is mounted over for the first time: the user's.
RUN python3 runtime_root.py /root-of-operations /app /srv/backend \
 && rmdir /root-of-operations/etc/backend && /app/bin/backend-mesh volumes --root /root-of-operations/etc/backend --owner 10001 \
 && python3 runtime_root.py --stamp /root-of-operations

FROM scratch
COPY --from=build /root-of-operations /
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="backend-operations" \
      org.opencontainers.image.description="What prepares and keeps a backend: secrets, certificates, configurations, migrations, streams" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/app/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt LC_ALL=C.UTF-8 PYTHONUTF8=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/backend
USER 10001:10001
ENTRYPOINT ["/app/bin/backend-mesh"]
CMD ["--help"]
