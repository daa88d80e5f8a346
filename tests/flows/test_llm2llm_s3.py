"""The loop with its store in an S3 bucket (moto's server), run twice from different machines' caches."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.loops import without_places
from tests.s3_server import s3_server


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    with s3_server("loops"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        yield "s3://loops/store"


@pytest.mark.slow
def test_a_second_run_without_the_local_cache_computes_nothing(loop, teacher, bucket: str) -> None:
    first = loop.run(store=bucket)
    assert first["model"]["uri"].startswith(f"{bucket}/sft/")
    asked = len(teacher.requests)
    shutil.rmtree(Path(os.environ["LOOPWRIGHT_HOME"]) / "cache")  # as on another machine
    again = loop.command(store=bucket)
    assert without_places(again) == without_places(first)
    assert len(teacher.requests) == asked
    said = (loop.folder / "stderr.txt").read_text()
    assert said.count("iteration 2: train: already done") == 1
