# The server in an image of its own: built here, run by nobody in particular, with nothing else in it but the
# certificates that it knows other servers by.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock rustfmt.toml ./
COPY benches benches
COPY migrations migrations
COPY src src
COPY templates templates
RUN cargo build --locked --release --bin storekeeper

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin storekeeper \
    && install --directory --owner=storekeeper --mode=700 /var/lib/storekeeper
COPY --from=build /build/target/release/storekeeper /usr/local/bin/storekeeper
USER storekeeper
WORKDIR /var/lib/storekeeper
ENV BIND=0.0.0.0:8081 LOG_FORMAT=json
EXPOSE 8081
# What is in the folder is lost with the container, unless a volume is mounted there or DATABASE_URL is set.
VOLUME /var/lib/storekeeper
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["storekeeper", "health"]
ENTRYPOINT ["storekeeper"]
CMD ["serve"]
