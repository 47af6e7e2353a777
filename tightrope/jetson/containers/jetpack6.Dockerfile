# Tightrope on JetPack 6.2 (Orin), from a checkout; not built by the project's own tests:
#   docker build -f jetson/containers/jetpack6.Dockerfile -t tightrope .
#   docker run --rm --runtime nvidia --network host -v /srv/bundles:/bundles:ro -v tightrope:/state tightrope /bundles/scene.bundle
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv python3-dev python3-libnvinfer build-essential \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY tightrope /src/tightrope
RUN python3 -m venv --system-site-packages /opt/tightrope \
    && PATH=/usr/local/cuda/bin:$PATH CUDA_ROOT=/usr/local/cuda /opt/tightrope/bin/pip install --no-cache-dir \
        --constraint /src/tightrope/jetson/pins/python3.10.txt "/src[cpu,serve,jetson]" \
    && useradd --system --groups video tightrope \
    && install -d -o tightrope /state
USER tightrope
ENV HOME=/state XDG_STATE_HOME=/state
VOLUME /state
HEALTHCHECK --start-period=120s CMD ["/opt/tightrope/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["/opt/tightrope/bin/tightrope", "serve"]
