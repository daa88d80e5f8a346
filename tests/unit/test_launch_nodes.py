"""Machines that start their parts of a stage themselves; here two, which are this one twice."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.errors import StageFailed, UserError
from tasks.core.launching.distributed import ADDRESS, FOLDER
from tasks.core.launching.launch import LaunchConfig, launch
from tests.unit.launch_jobs import all_dead


@pytest.fixture
def second_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    """What runs on the second; this process is the first."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "nodes"))
    monkeypatch.setenv(ADDRESS, "localhost")
    command = [sys.executable, "-m", "tasks.core.launching.nodes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    yield process
    process.terminate()
    assert process.wait(timeout=60) == 0


def run(name: str, job: Path, config: dict[str, object], **settings: object) -> dict[str, object]:
    given = LaunchConfig(nodes=2, timeout_s=240, **settings)  # type: ignore[arg-type]
    return launch(f"tests.unit.launch_jobs:{name}", config, {}, job, stage="toy", settings=given)


@pytest.mark.slow
def test_the_second_machine_joins_what_the_first_announces_again_and_again(
    tmp_path: Path, second_machine: "subprocess.Popen[str]"
) -> None:
    assert run("all_reduce", tmp_path / "one", {})["sum"] == 11
    with pytest.raises(StageFailed, match="crashed"):  # wherever that rank was
        run("second_rank_fails", tmp_path / "two", {"signal": 0})
    groups = (tmp_path / "two" / "groups.txt").read_text().split()[1::2]
    assert len(groups) == 2
    assert all_dead([int(group) for group in groups])
    assert run("all_reduce", tmp_path / "three", {})["sum"] == 11
    assert not list((tmp_path / "nodes").glob("*.json"))
    assert second_machine.stdout is not None
    joined = [second_machine.stdout.readline().split()[-1] for _ in range(3)]
    assert joined == [str(tmp_path / name) for name in ("one", "two", "three")]


@pytest.mark.slow
def test_a_stage_that_is_ended_leaves_no_process_on_either_machine(
    tmp_path: Path, second_machine: "subprocess.Popen[str]"
) -> None:
    settings = LaunchConfig(nodes=2, timeout_s=60, grace_s=1)
    with pytest.raises(StageFailed, match="timeout_s"):
        launch(
            "tests.unit.launch_jobs:sleep",
            {"seconds": 600},
            {},
            tmp_path / "job",
            stage="toy",
            settings=settings,
        )
    pids = [pid for file in (tmp_path / "job" / "out").glob("pids-*") for pid in json.loads(file.read_text())]
    assert len(pids) == 4  # a rank and its child on each
    assert all_dead(pids)
    assert second_machine.poll() is None


def test_without_a_name_for_the_first_machine_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (ADDRESS, "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(UserError, match="outside of a Slurm allocation") as caught:
        run("echo", tmp_path / "job", {})
    assert "infra/kubernetes/train" in (caught.value.mend or "")


def test_a_second_machine_that_is_told_to_stop_ends_with_success(tmp_path: Path) -> None:
    folder = tmp_path / "nodes"
    environment = os.environ | {FOLDER: str(folder)}
    process = subprocess.Popen([sys.executable, "-m", "tasks.core.launching.nodes"], env=environment)
    while not folder.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 0
