#!/bin/sh
# What `make up` prepares on the servers: bucket, work pool with its queues, deployments, GPU slots. Can be run again.
set -eu
python -c "import s3fs; s3fs.S3FileSystem().makedirs('loopwright', exist_ok=True)"
python -m deployments.service.deploying
slots() { prefect global-concurrency-limit inspect "$1" >/dev/null 2>&1 || prefect global-concurrency-limit create "$1" --limit "$2"; }
slots loopwright-gpu "${LOOPWRIGHT_GPU_SLOTS:-1}"
slots loopwright-gpu-next 1
