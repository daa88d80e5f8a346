"""One configuration, unchanged but for where it runs: one process; two with ZeRO-3; Ray, with data and store on S3."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from safetensors.torch import load_file

from tasks.core.examples import Example
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tests.s3_server import s3_server

pytestmark = pytest.mark.slow

SETTINGS = {"evaluation.restricted": "true", "training.max_steps": "6", "fan_out.rows_per_shard": "2"}


def trained_on(result: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """The rows of the last training."""
    with fsspec.open(result["places"]["data"], "rt") as lines:
        rows = [Example.model_validate_json(line) for line in lines]
    return [(row.input, row.target, row.parent) for row in rows]


def same(result: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same rows, the same figures and the same weights, as far as sums in another order allow."""
    import torch

    assert len(result["iterations"]) == len(expected["iterations"]) == 2
    for ours, theirs in zip(result["iterations"], expected["iterations"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert trained_on(result) == trained_on(expected)
    weights = [
        load_file(fetch(ModelRef.model_validate(one["model"])) / "adapter_model.safetensors")
        for one in (result, expected)
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-4, rtol=0, msg=name)


@pytest.mark.skipif(
    not (find_spec("ray") and find_spec("prefect_ray")), reason="Ray is not installed (the extra `ray`)"
)
@pytest.mark.timeout(1200)
def test_one_configuration_gives_the_same_in_one_process_in_two_with_zero_and_on_ray_with_s3(
    new_loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loop = new_loop(tmp_path / "alone")
    loop.settings |= SETTINGS
    alone = loop.command()
    assert 0 < alone["metrics"]["eval/accuracy"] <= 1
    assert any(
        parent for _, _, parent in trained_on(alone)
    )  # so that the teacher's rows are compared as well

    loop = new_loop(tmp_path / "two")
    loop.settings |= SETTINGS
    two = loop.command(launch__processes=2, training__deepspeed="zero3")
    same(two, alone)

    with s3_server("jobs") as bucket:
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
        loop = new_loop(tmp_path / "ray")
        loop.settings |= SETTINGS
        for name in ("train", "test"):
            bucket.upload_file(str(loop.folder / f"{name}.jsonl"), "jobs", f"data/{name}.jsonl")
            loop.settings[f"data.{name}"] = f"s3://jobs/data/{name}.jsonl"
        shutil.rmtree(loop.folder / "store", ignore_errors=True)
        ray = loop.command(store="s3://jobs/store", fan_out__runner="ray", fan_out__at_once=2)
        assert ray["model"]["uri"].startswith("s3://jobs/store/")
        same(ray, alone)
        assert ray["model"]["digest"] == alone["model"]["digest"]
