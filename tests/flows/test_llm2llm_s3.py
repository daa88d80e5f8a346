"""The loop with its store in an S3 bucket (moto's server), run twice from different machines' caches."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.loops import without_places


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ENDPOINT_URL", f"http://{host}:{port}"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        boto3.client("s3").create_bucket(Bucket="loops")
        yield "s3://loops/store"
    server.stop()


def test_a_second_run_without_the_local_cache_computes_nothing(loop, teacher, bucket: str) -> None:
    first = loop.run(store=bucket)
    assert first["model"]["uri"].startswith(f"{bucket}/sft/")
    asked = len(teacher.requests)
    shutil.rmtree(Path(os.environ["LOOPWRIGHT_HOME"]) / "cache")  # as on another machine
    again = loop.run(store=bucket)
    assert without_places(again) == without_places(first)
    assert len(teacher.requests) == asked
    said = (loop.folder / "stderr.txt").read_text()
    assert said.count("iteration 2: train: already done") == 1
