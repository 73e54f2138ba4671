# Sayso for serving on an NVIDIA GPU: no torch. Build from the top folder:
#   docker build -f docker/cuda.Dockerfile -t sayso-cuda .
# The extra `cuda` brings the CUDA and cuDNN libraries as wheels, so the base is the same as the CPU image's;
# the driver comes from the host (NVIDIA Container Toolkit).

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/sayso
COPY . .
RUN /opt/sayso/bin/pip install --no-cache-dir --disable-pip-version-check '.[cuda]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sayso \
    && install -d -o sayso -g sayso -m 700 /data
COPY --from=build /opt/sayso /opt/sayso
ENV PATH=/opt/sayso/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    SAYSO_PROVIDER=cuda \
    SAYSO_DATA_DIR=/data \
    SAYSO_HOST=0.0.0.0 \
    SAYSO_PORT=8000
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; \
r.urlopen(f'http://127.0.0.1:{os.environ[\"SAYSO_PORT\"] or 8000}/readyz', timeout=8)"]
CMD ["sayso", "serve"]
