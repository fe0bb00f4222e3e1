# A server with qml for the harness (--pg-image): docker build -f test/bench/qml-bench/postgres.Dockerfile .
FROM postgres:18.3-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make postgresql-server-dev-18 \
    && rm -rf /var/lib/apt/lists/*
COPY Makefile qml.control /qml/
COPY sql /qml/sql
COPY src /qml/src
RUN make -C /qml install
