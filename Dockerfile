# Tilekeep's server, without the demo. Needs BuildKit (Docker 23 and newer have it on).
#
#   docker build -t tilekeep .
#   docker run --rm -p 8080:8080 -v ./tilekeep.toml:/etc/tilekeep/tilekeep.toml:ro -v tiles:/var/cache/tilekeep tilekeep
#
# The configuration in a container listens on 0.0.0.0, so it needs `public_url`, and `admin_token`
# when the admin side listens there too: deploy/compose.toml is one to start from.

# The map page's libraries, by lock file.
FROM node:20-bookworm-slim AS web
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs build_samples.rs askama.toml ./
COPY benches benches
COPY src src
COPY web web
COPY --from=web /web/node_modules web/node_modules
# What npm installed above is embedded; nothing is fetched for the pages in here.
ENV TILEKEEP_NO_NPM=1
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --profile dist --locked --no-default-features --features mbtiles \
    && cp target/dist/tilekeep /usr/local/bin/tilekeep

FROM debian:bookworm-slim
# The certificates by which S3 and STS are recognised.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /var/lib/tilekeep --shell /usr/sbin/nologin tilekeep \
    && install -d -o tilekeep -g tilekeep -m 0700 /var/lib/tilekeep /var/cache/tilekeep \
    && install -d /etc/tilekeep
COPY --from=build /usr/local/bin/tilekeep /usr/local/bin/tilekeep
COPY LICENSE /usr/share/doc/tilekeep/LICENSE
USER tilekeep
WORKDIR /etc/tilekeep
# Tiles and pages; metrics and health, which are for the inside of your network alone.
EXPOSE 8080 9090
VOLUME ["/var/cache/tilekeep", "/var/lib/tilekeep"]
# SIGTERM: open requests and queued disk writes are finished within [server] shutdown_grace (20s), so give
# `docker stop` a little longer than that (--stop-timeout 30).
STOPSIGNAL SIGTERM
ENTRYPOINT ["tilekeep"]
CMD ["serve", "--config", "/etc/tilekeep/tilekeep.toml"]
