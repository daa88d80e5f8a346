"""No process outlives its stage: time-out, cancel, the death of the launching process, several ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.errors import StageFailed, UserError
from tasks.core.launching import forking
from tasks.core.launching.launch import LaunchConfig, launch
from tests.fsdp_on_cpus import write_fsdp_config
from tests.srun import allocate_two_machines
from tests.unit.launch_jobs import all_dead

LAUNCHING = """
import json, sys
from pathlib import Path
from tasks.core.launching.forking import warm_up
from tasks.core.launching.launch import LaunchConfig, launch
function, config, job, settings = json.loads(sys.argv[1])
warm_up(preload=())
launch(function, config, {}, Path(job), stage="toy", settings=LaunchConfig(**settings))
"""

ORPHAN = """
import sys, time
from pathlib import Path
from tasks.core.launching.job import mark_running
job = Path(sys.argv[1])
mark_running(job)
print("running", flush=True)
time.sleep(1)
(job / "out" / "ended").touch()
"""


@pytest.fixture(scope="module", autouse=True)
def _light_fork_server() -> None:
    forking.warm_up(preload=())


def run(name: str, job: Path, config: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    function = f"tests.unit.launch_jobs:{name}"
    return launch(function, config or {}, {}, job, stage="toy", settings=LaunchConfig(**settings))


def start_launching_process(
    name: str, config: dict[str, Any], job: Path, **settings: Any
) -> subprocess.Popen[str]:
    """A process that launches; of its own, so that a test can kill it."""
    arguments = json.dumps([f"tests.unit.launch_jobs:{name}", config, str(job), settings])
    command = [sys.executable, "-c", LAUNCHING, arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_pids(job: Path, ranks: int = 1) -> list[int]:
    """The ids of all ranks and their grandchildren, once all of them run."""
    files = [job / "out" / f"pids-{rank}.json" for rank in range(ranks)]
    deadline = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, "the stage did not start"
        time.sleep(0.05)
    return [pid for file in files for pid in json.loads(file.read_text())]


def test_torchrun_lets_its_ranks_have_the_grace_of_the_launch(tmp_path: Path) -> None:
    """It is asked to end together with them, and by itself would kill them after 30 seconds."""
    found = run("patience", tmp_path, launcher="torchrun", grace_s=300.5)
    assert found == {"seconds": 301}


# torchrun imports torch before it starts a rank, which takes longest on a busy machine.
@pytest.mark.parametrize(
    ("launcher", "stubborn", "timeout_s"), [("fork", False, 1), ("fork", True, 1), ("torchrun", True, 15)]
)
def test_a_time_out_kills_a_stage_and_what_it_started(
    tmp_path: Path, launcher: str, stubborn: bool, timeout_s: float
) -> None:
    config = {"seconds": 600, "stubborn": stubborn}
    with pytest.raises(StageFailed) as caught:
        run("sleep", tmp_path, config, launcher=launcher, timeout_s=timeout_s, grace_s=1)
    assert f"launch.timeout_s allows ({timeout_s} s)" in caught.value.reason
    assert all_dead(wait_for_pids(tmp_path))


def test_an_exception_while_waiting_kills_the_stage_and_goes_on(tmp_path: Path) -> None:
    def cancel(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(
            "tests.unit.launch_jobs:sleep",
            {"seconds": 600},
            {},
            tmp_path,
            stage="toy",
            settings=LaunchConfig(),
            on_event=cancel,
        )
    assert all_dead(wait_for_pids(tmp_path))


@pytest.mark.parametrize(("launcher", "processes"), [("fork", 1), ("torchrun", 2)])
def test_an_interrupt_of_the_launching_process_leaves_no_process(
    tmp_path: Path, launcher: str, processes: int
) -> None:
    settings = {"launcher": launcher, "processes": processes, "grace_s": 2}
    launching = start_launching_process("sleep", {"seconds": 600}, tmp_path, **settings)
    pids = wait_for_pids(tmp_path, processes)
    os.killpg(launching.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
    _, errors = launching.communicate(timeout=60)
    assert errors.count("KeyboardInterrupt") == 1
    assert launching.returncode == -signal.SIGINT
    assert all_dead(pids)


@pytest.mark.parametrize(("launcher", "processes"), [("fork", 1), ("torchrun", 2)])
def test_the_death_of_the_launching_process_leaves_no_process_and_the_job_runs_again(
    tmp_path: Path, launcher: str, processes: int
) -> None:
    settings = {"launcher": launcher, "processes": processes}
    launching = start_launching_process("sleep", {"seconds": 600, "stubborn": True}, tmp_path, **settings)
    pids = wait_for_pids(tmp_path, processes)
    launching.kill()  # and not reaped, as happens in a container without an init
    assert all_dead(pids)
    launching.communicate()
    assert run("sleep", tmp_path, {"seconds": 0})["pids"][0] not in pids


def test_a_stage_that_lets_no_thread_run_dies_with_the_launching_process_too(tmp_path: Path) -> None:
    launching = start_launching_process("hold_the_interpreter", {}, tmp_path)
    pids = wait_for_pids(tmp_path)
    launching.kill()
    assert all_dead(pids)
    launching.communicate()


def test_a_new_launch_waits_until_the_orphan_of_an_earlier_one_is_dead(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    orphan = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    assert run("look", tmp_path, {"file": "ended"}) == {"found": True}
    orphan.communicate()


def test_an_orphan_that_does_not_die_is_named_and_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.launching.launch._DEATH_S", 0.2)
    (tmp_path / "out").mkdir()
    orphan = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    with pytest.raises(StageFailed, match="an earlier attempt still runs"):
        run("echo", tmp_path)
    assert not (tmp_path / "out" / "file.txt").exists()
    orphan.communicate()


def test_a_stage_has_ended_when_its_last_process_has(tmp_path: Path) -> None:
    run("leave_the_group", tmp_path)
    assert (tmp_path / "out" / "ended").exists()


def test_a_stage_may_save_its_work_before_it_is_killed(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="timeout_s"):
        run("save_when_told", tmp_path, timeout_s=1)
    assert (tmp_path / "out" / "saved").exists()


def test_a_process_that_the_stage_left_behind_is_killed_at_its_end(tmp_path: Path) -> None:
    for launcher in ("fork", "torchrun"):
        assert all_dead(run("sleep", tmp_path, {"seconds": 0}, launcher=launcher)["pids"])


def test_two_ranks_reduce_together_and_the_first_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    events: list[dict[str, Any]] = []
    result = launch(
        "tests.unit.launch_jobs:all_reduce",
        {},
        {},
        tmp_path,
        stage="toy",
        settings=LaunchConfig(processes=2),
        on_event=events.append,
    )
    assert (result["sum"], result["rank"], result["world"]) == (11, 0, 2)
    assert [event["rank"] for event in events] == [0]
    assert result["device"] == "cpu"
    assert result["threads"] == "3"


def test_two_machines_are_reached_through_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocate_two_machines(tmp_path, monkeypatch)
    result = run("all_reduce", tmp_path / "job", nodes=2, timeout_s=120)
    assert (result["sum"], result["rank"], result["world"]) == (11, 0, 2)


def test_a_crash_of_one_rank_ends_all_and_shows_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run("second_rank_fails", tmp_path, {"signal": 0}, processes=2)
    assert caught.value.log_tail.endswith("RuntimeError: the second rank gave up")


def test_a_rank_killed_from_outside_is_taken_for_the_kernel_s(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="most likely because the machine ran out of memory"):
        run("second_rank_fails", tmp_path, {"signal": signal.SIGKILL}, processes=2)


def test_an_error_of_the_user_s_comes_back_from_several_ranks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'label'"):
        run("user_error", tmp_path, processes=2)


def write_accelerate_config(path: Path, **settings: Any) -> str:
    path.write_text(
        yaml.safe_dump({"compute_environment": "LOCAL_MACHINE", "mixed_precision": "no", **settings})
    )
    return str(path)


def test_accelerate_starts_the_ranks_of_a_deepspeed_file(tmp_path: Path) -> None:
    settings = {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2}}
    file = write_accelerate_config(tmp_path / "accelerate.yaml", **settings)
    result = run("all_reduce", tmp_path / "job", launcher="accelerate", processes=2, config_file=file)
    assert (result["sum"], result["world"]) == (11, 2)


def test_a_file_for_fsdp_is_followed_on_several_machines_as_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_fsdp_config(tmp_path / "fsdp.yaml")
    settings = {"launcher": "accelerate", "config_file": file, "timeout_s": 240}
    one = run("accelerate_environment", tmp_path / "one", processes=2, **settings)
    assert one["told"]["ACCELERATE_USE_FSDP"] == "true"
    assert one["told"]["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    allocate_two_machines(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    two = run("accelerate_environment", tmp_path / "two", nodes=2, **settings | {"config_file": "fsdp.yaml"})
    assert two == one


def test_fewer_processes_than_asked_for_are_an_error_and_not_a_slow_run(tmp_path: Path) -> None:
    file = write_accelerate_config(tmp_path / "accelerate.yaml", distributed_type="MULTI_CPU", use_cpu=True)
    with pytest.raises(UserError, match="2 processes were asked for, 1 came up") as caught:
        run("echo", tmp_path / "job", launcher="accelerate", processes=2, config_file=file)
    assert caught.value.field == "launch.processes"
