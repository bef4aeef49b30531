# syntax=docker/dockerfile:1
# The API, control and the commands of `promptmill`: no torch in here.
# A mirror or a local index for pip is passed as a build argument, e.g.
#   docker compose build --build-arg PIP_INDEX_URL=...
FROM python:3.11-slim-bookworm AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
RUN python -m venv /opt/promptmill
COPY pyproject.toml constraints.txt README.md ./
COPY promptmill promptmill
COPY api api
COPY worker worker
RUN /opt/promptmill/bin/pip install --no-cache-dir --no-compile -c constraints.txt ".[api,otel]"

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 promptmill \
    && useradd --system --uid 10001 --gid promptmill --no-create-home promptmill \
    && install -d -o promptmill -g promptmill -m 0750 /var/lib/promptmill
COPY --from=build /opt/promptmill /opt/promptmill
ENV PATH=/opt/promptmill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PROMPTMILL_DATA_DIR=/var/lib/promptmill \
    PROMPTMILL_HOST=0.0.0.0 \
    PROMPTMILL_AUTH=keys
WORKDIR /var/lib/promptmill
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=25s --start-period=30s --retries=3 \
    CMD ["promptmill", "doctor", "--check", "api"]
CMD ["promptmill", "api"]
