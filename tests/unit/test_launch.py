"""One process per stage: results, events, errors, and folders that are used again."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.core.errors import DamagedArtifact, StageFailed, UserError
from tasks.core.launching import forking
from tasks.core.launching.child import resolve
from tasks.core.launching.endings import conclude, log_tail, mask_secrets
from tasks.core.launching.job import EventReader, write_json
from tasks.core.launching.launch import LaunchConfig, check_launch, launch
from tests.unit.launch_jobs import all_dead


@pytest.fixture(scope="module", autouse=True)
def _light_fork_server() -> None:
    forking.warm_up(preload=())


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[forking.ForkServer]:
    server = forking.ForkServer(preload=("decimal:Decimal",))
    monkeypatch.setitem(forking._servers, os.getpid(), server)
    yield server
    server.close()


def run(
    name: str,
    job: Path,
    config: dict[str, Any] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    function = f"tests.unit.launch_jobs:{name}"
    launch_config = LaunchConfig(**settings)
    return launch(function, config or {}, {}, job, stage="toy", settings=launch_config, on_event=on_event)


def test_a_function_gets_its_config_and_inputs_and_its_result_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "set after the server was started")
    config, inputs = {"rate": 0.5, "text": "naïve ☂\n"}, {"data": {"uri": "a", "rows": 3}}
    settings = LaunchConfig()
    result = launch(
        "tests.unit.launch_jobs:echo", config, inputs, tmp_path / "job", stage="toy", settings=settings
    )
    assert (result["config"], result["inputs"]) == (config, inputs)
    assert result["variable"] == "set after the server was started"
    assert (tmp_path / "job" / "out" / "file.txt").read_text() == "written"
    assert json.loads((tmp_path / "job" / "result.json").read_text()) == result
    assert json.loads((tmp_path / "job" / "config.json").read_text())["config"] == config


def test_stages_are_forked_from_one_preloaded_server_into_groups_of_their_own(
    tmp_path: Path, own_server: forking.ForkServer
) -> None:
    first, second = (run("echo", tmp_path / name)["process"] for name in "ab")
    assert first["parent"] == second["parent"] == own_server.pid
    assert first["pid"] != second["pid"]
    for process in (first, second):
        assert process["group"] == process["pid"]
        assert process["preloaded"] == ["decimal"]
    assert psutil.Process(own_server.pid).num_threads() == 1


def test_a_stage_trains_in_parallel_after_the_server_has_loaded_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = forking.ForkServer(forking.PRELOAD)
    monkeypatch.setitem(forking._servers, os.getpid(), server)
    result = run("compute", tmp_path, timeout_s=300)
    server.close()
    assert result == {"preloaded": True, "product": 512.0**3, "gradient": 512.0**3, "batches": [1, 5, 9, 13]}


def test_a_server_that_died_is_replaced(tmp_path: Path, own_server: forking.ForkServer) -> None:
    os.kill(own_server.pid, signal.SIGKILL)
    own_server._process.wait()
    process = run("echo", tmp_path)["process"]
    assert process["parent"] not in (own_server.pid, os.getpid())
    assert process["preloaded"] == ["decimal"]
    forking.fork_server().close()


def test_the_death_of_the_server_ends_its_stage_as_a_failure(
    tmp_path: Path, own_server: forking.ForkServer
) -> None:
    seen: list[int] = []

    def kill_server(event: dict[str, Any]) -> None:
        seen.extend(event["pids"])
        os.kill(own_server.pid, signal.SIGKILL)

    with pytest.raises(StageFailed, match="SIGKILL"):
        run("sleep", tmp_path, {"seconds": 600}, kill_server)
    assert len(seen) == 2
    assert all_dead(seen)


def test_a_server_whose_import_fails_is_a_failure_and_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = forking.ForkServer(preload=("no_such_module",))
    monkeypatch.setitem(forking._servers, os.getpid(), server)
    with pytest.raises(StageFailed, match="exit code 1"):
        run("echo", tmp_path)
    server.close()


def test_memory_is_free_again_when_a_stage_has_ended(tmp_path: Path) -> None:
    before = psutil.Process().memory_info().rss
    result = run("memory", tmp_path, {"bytes": 200_000_000})
    assert result["held"] == 200_000_000
    assert not psutil.pid_exists(result["pid"])
    assert psutil.Process().memory_info().rss - before < 50_000_000


def test_events_arrive_while_the_stage_runs_in_order_and_complete(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    def answer(event: dict[str, Any]) -> None:
        # The stage does not go on before it is answered: an event that comes late would never come.
        events.append(event)
        (tmp_path / "out" / f"seen-{event['step']}").touch()

    run("steps", tmp_path, {"steps": 4, "answer": True}, answer, timeout_s=60)
    assert [(event["step"], event["train/loss"]) for event in events] == [
        (0, 1),
        (1, 1 / 2),
        (2, 1 / 3),
        (3, 1 / 4),
    ]
    assert all(event["time"] > 1.6e9 for event in events)


def test_a_burst_of_events_is_drained_after_the_end(tmp_path: Path) -> None:
    events: list[int] = []
    run("steps", tmp_path, {"steps": 5000, "answer": False}, lambda event: events.append(event["step"]))
    assert events == list(range(5000))


def test_a_half_written_line_is_never_delivered(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    run("half_line", tmp_path, on_event=events.append)
    assert [event["step"] for event in events] == [0]


def test_a_line_is_delivered_once_its_end_has_come(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    path = tmp_path / "metrics.jsonl"
    reader = EventReader(path)
    reader.deliver(events.append)
    for text, expected in [('{"a": "é', 0), ('"}\n{"b"', 1), (": 2}\n", 2), ("", 2)]:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        reader.deliver(events.append)
        assert len(events) == expected
    assert events == [{"a": "é"}, {"b": 2}]


def test_a_user_error_is_raised_again_as_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run("user_error", tmp_path)
    error = caught.value
    assert (error.field, error.fault, error.mend) == (
        "data.train",
        "no column 'label'",
        "Name a column of the file.",
    )


def test_a_damaged_artifact_is_raised_again_as_itself(tmp_path: Path) -> None:
    with pytest.raises(DamagedArtifact) as caught:
        run("damaged", tmp_path)
    error = caught.value
    assert (error.uri, error.file, error.reason) == ("s3://store/model", "weights.bin", "another digest")


def test_a_crash_carries_the_last_thirty_lines_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run("crash", tmp_path, {"message": "the sky fell"})
    tail = caught.value.log_tail.splitlines()
    assert len(tail) == 30
    assert tail[-1] == "RuntimeError: the sky fell"
    assert "line 99" in tail
    assert "line 1" not in tail
    assert caught.value.stage == "toy"
    assert caught.value.reason == "its process crashed (exit code 1)"
    assert caught.value.mend == ""


def test_secrets_do_not_leave_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-12345")
    with pytest.raises(StageFailed) as caught:
        run("crash", tmp_path, {"message": "401 for sk-12345"})
    assert "sk-12345" not in str(caught.value)
    assert caught.value.log_tail.endswith("RuntimeError: 401 for [OPENAI_API_KEY]")


def test_a_secret_inside_another_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "abcd")
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh")
    monkeypatch.setenv("db_password", "")
    monkeypatch.setenv("PLAIN", "visible")
    assert mask_secrets("abcdefgh abcd visible") == "[LONG_TOKEN] [SHORT_TOKEN] visible"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes",
    ],
)
def test_want_of_memory_says_what_to_lower(tmp_path: Path, message: str) -> None:
    with pytest.raises(StageFailed, match="out of memory") as caught:
        run("crash", tmp_path, {"message": message})
    assert "batch size" in caught.value.mend
    assert message in caught.value.log_tail


def test_python_s_own_memory_error_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="out of memory"):
        run("memory", tmp_path, {"bytes": 2**60})


def test_a_kill_from_outside_is_taken_for_the_kernel_s(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="most likely because the machine ran out of memory") as caught:
        run("kill_itself", tmp_path, {"signal": signal.SIGKILL})
    assert "batch size" in caught.value.mend


def test_a_segmentation_fault_names_its_signal_and_its_line(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="SIGSEGV") as caught:
        run("kill_itself", tmp_path, {"signal": signal.SIGSEGV})
    assert "kill_itself" in caught.value.log_tail


def test_an_end_without_a_result_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="without a result") as caught:
        run("exit_early", tmp_path)
    assert caught.value.log_tail == "going home"


def test_a_result_that_is_no_json_is_a_failure_and_leaves_no_result(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run("unspeakable", tmp_path)
    assert "TypeError" in caught.value.log_tail
    assert not (tmp_path / "result.json").exists()


def test_a_killed_attempt_is_resumed_from_its_checkpoint(tmp_path: Path) -> None:
    events: list[int] = []
    with pytest.raises(StageFailed):
        run("resume", tmp_path, on_event=lambda event: events.append(event["step"]))
    assert run("resume", tmp_path, on_event=lambda event: events.append(event["step"])) == {"first": 7}
    assert events == [0, 7]
    assert (tmp_path / "log.txt").read_text() == "the second attempt\n"


def test_a_failure_after_a_success_does_not_return_the_old_result(tmp_path: Path) -> None:
    run("echo", tmp_path)
    with pytest.raises(StageFailed, match="without a result"):
        run("exit_early", tmp_path)


def test_a_result_does_not_count_when_another_rank_crashed(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"accuracy": 1.0})
    assert conclude(tmp_path, "toy", 0) == {"accuracy": 1.0}
    with pytest.raises(StageFailed, match="exit code 1"):
        conclude(tmp_path, "toy", 1)


def test_a_progress_bar_takes_one_line_of_the_tail(tmp_path: Path) -> None:
    bar = "\r".join(f"{percent}%" for percent in range(101))
    (tmp_path / "log.txt").write_text(f"start\n{bar}\nend\n", newline="")
    assert log_tail(tmp_path) == "start\n100%\nend"


def test_a_flow_that_is_itself_one_of_several_ranks_launches_whole_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert run("echo", tmp_path)["config"] == {}


def test_two_launches_in_one_folder_take_turns(tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(run("take_turns", tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result["pid"] for result in results}) == 3


def test_launches_in_several_folders_run_side_by_side(tmp_path: Path) -> None:
    names = [f"job-{number}" for number in range(6)]
    pids: dict[str, int] = {}
    both = threading.Barrier(len(names), timeout=60)

    def one(name: str) -> None:
        # Every stage waits to be answered, and no answer comes before all of them run.
        def answer(event: dict[str, Any]) -> None:
            both.wait()
            (tmp_path / name / "out" / "seen-0").touch()

        pids[name] = run("steps", tmp_path / name, {"steps": 1, "answer": True}, answer)["steps"]

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pids == dict.fromkeys(names, 1)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"launcher": "fork", "processes": 2}, "launch.launcher"),
        ({"launcher": "accelerate"}, "launch.config_file"),
        ({"launcher": "accelerate", "config_file": "no/such/file.yaml"}, "launch.config_file"),
        ({"config_file": "cluster.yaml"}, "launch.config_file"),
        ({"nodes": 2}, "launch.nodes"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError) as caught:
        run("echo", tmp_path / "job", **settings)
    assert caught.value.field == field
    assert caught.value.mend
    assert not (tmp_path / "job").exists()


def on_machines(file: Path, text: str, nodes: int) -> LaunchConfig:
    """Settings of accelerate's launcher, whose file has this text."""
    file.write_text(text)
    given = {"launcher": "accelerate", "config_file": str(file), "processes": 2, "nodes": nodes}
    return LaunchConfig.model_validate(given)


@pytest.mark.parametrize("settings", ["distributed_type: MULTI_GPU", "deepspeed_config: {zero_stage: 2}"])
def test_accelerate_s_launcher_is_refused_machines_that_it_cannot_reach(
    tmp_path: Path, settings: str
) -> None:
    check_launch(on_machines(tmp_path / "accelerate.yaml", settings, nodes=1))
    with pytest.raises(UserError, match="this machine alone") as caught:
        check_launch(on_machines(tmp_path / "accelerate.yaml", settings, nodes=2))
    assert caught.value.field == "launch.nodes"
    assert "auto" in caught.value.mend


@pytest.mark.parametrize(
    "settings", ["distributed_type: FSDP", "deepspeed_config: {deepspeed_hostfile: /etc/hosts}"]
)
def test_and_is_not_where_torchrun_or_deepspeed_reaches_them(tmp_path: Path, settings: str) -> None:
    check_launch(on_machines(tmp_path / "accelerate.yaml", settings, nodes=2))


def test_a_json_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_names_are_resolved_to_modules_and_their_attributes() -> None:
    assert resolve("json") is json
    assert resolve("json:loads") is json.loads
