# syntax=docker/dockerfile:1
# A worker, with torch and the weights of the model that ships.
# Which build of torch (CPU or CUDA) is installed is pip's configuration: pass a mirror or
# an index as a build argument, e.g.
#   docker compose build --build-arg PIP_EXTRA_INDEX_URL=... worker
# EXTRAS: parts of the package; worker,otel,hf adds checkpoints of diffusers and transformers,
# worker,otel,gpu their quantization too. otel: traces.
FROM python:3.11-slim-bookworm AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=worker,otel
WORKDIR /src
RUN python -m venv /opt/promptmill
COPY pyproject.toml constraints.txt README.md ./
COPY promptmill promptmill
COPY worker worker
COPY api api
RUN /opt/promptmill/bin/pip install --no-cache-dir --no-compile -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 promptmill \
    && useradd --system --uid 10001 --gid promptmill --no-create-home promptmill \
    && install -d -o promptmill -g promptmill -m 0750 /var/lib/promptmill
COPY --from=build /opt/promptmill /opt/promptmill
ENV PATH=/opt/promptmill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/promptmill \
    HF_HOME=/var/lib/promptmill/hub \
    PROMPTMILL_DATA_DIR=/var/lib/promptmill
WORKDIR /var/lib/promptmill
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=25s --start-period=120s --retries=3 \
    CMD ["promptmill", "doctor", "--check", "worker"]
CMD ["promptmill", "worker"]
