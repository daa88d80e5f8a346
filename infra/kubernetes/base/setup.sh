#!/bin/sh
# What `make up` prepares on the servers: bucket, work pool, deployments. The Job tries again until they answer. There are
# no GPU slots here: a run has the GPUs of its own pod, and the scheduler lets the others wait.
set -eu
python -c "import s3fs; s3fs.S3FileSystem().makedirs('loopwright', exist_ok=True)"
prefect work-pool create loopwright --type kubernetes --base-job-template /etc/loopwright/job-template.json --overwrite
python -m deployments.service.deploying
