"""A function that misbehaves harms its own call and nothing else."""

import os
import time
from pathlib import Path

import pytest

from tasks.rewards.sandboxed import CannotStart, Sandbox
from tests.unit.launch_jobs import all_dead

VERIFY = "tests.unit.verifiers:verify"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(VERIFY) as running:
        yield running


def call(sandbox, completion, limit=60.0):
    return sandbox.call("prompt", completion, {}, time_limit_s=limit)


@pytest.mark.parametrize(
    ("word", "failure", "reason"),
    [
        ("hang", "timed_out", "no answer within 0.5 s"),
        ("hang in C", "timed_out", "no answer within 0.5 s"),
        ("segfault", "crashed", "SIGSEGV"),
        ("os._exit", "crashed", "exit code 3"),
        ("kill group", "crashed", "ended from outside or killed its own group"),
        ("die loudly", "crashed", "exit code 4): the licence server is down"),
        ("sys.exit", "crashed", "SystemExit: I leave (verifiers.py, line "),
        ("raise", "crashed", "ZeroDivisionError: division by zero (verifiers.py, line "),
        ("no such word", "crashed", "KeyError: 'no such word'"),
    ],
)
def test_a_call_that_fails_says_why_and_the_next_is_answered(sandbox, word, failure, reason):
    outcome = call(sandbox, word, limit=0.5 if failure == "timed_out" else 60.0)
    assert (outcome.value, outcome.failure) == (None, failure)
    assert reason in outcome.reason
    assert call(sandbox, "h").value == 0.7


def test_megabytes_of_output_neither_block_nor_stay(sandbox):
    assert call(sandbox, "print").value == 0.5
    assert len(sandbox._child._tail) <= 2000
    assert len(call(sandbox, "os._exit").reason) < 400


@pytest.mark.parametrize(
    ("word", "value"),
    [("text", "0.5"), ("none", None), ("true", True), ("numpy", 0.5), ("object", "<object>")],
)
def test_values_arrive_as_json(sandbox, word, value):
    assert call(sandbox, word).value == value


def test_large_arguments_arrive_whole():
    with Sandbox("builtins:len") as running:
        assert running.call("é" * 3_000_000, time_limit_s=60.0).value == 3_000_000


def test_a_fork_that_the_function_forgot_does_not_answer_as_well(sandbox):
    assert call(sandbox, "forgotten fork").value == 0.5
    assert [call(sandbox, letter).value for letter in "abcabc"] == [0.0, 0.1, 0.2] * 2


def test_a_process_that_dies_between_two_calls_is_no_fault_of_the_next(sandbox):
    assert call(sandbox, "die later").value == 0.5
    time.sleep(1)
    outcome = call(sandbox, "j")
    assert (outcome.value, outcome.failure) == (0.9, "")


@pytest.mark.parametrize("completion", ["a", "hang"])
def test_what_the_function_started_ends_with_it(tmp_path, monkeypatch, completion):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    with Sandbox("tests.unit.verifiers:leave_running") as running:
        assert call(running, completion, limit=3.0).failure == ("timed_out" if completion == "hang" else "")
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 3
        if completion == "a":
            assert not all_dead(pids, patience_s=0)
            running.close()
        assert all_dead(pids)


def test_memory_is_bounded_where_asked(sandbox):
    assert call(sandbox, "memory").value == 1.0
    with Sandbox(VERIFY, memory_mb=1024) as small:
        assert call(small, "memory").reason.startswith("MemoryError")
        assert call(small, "b").value == 0.1


def test_the_order_of_a_set_is_the_same_in_every_process():
    orders = []
    for _ in range(2):
        with Sandbox("tests.unit.verifiers:in_a_set") as running:
            orders.append(running.call(time_limit_s=60.0).value)
    assert orders[0] == orders[1]
    assert len(orders[0]) == 50


def test_the_process_loads_nothing_heavy():
    with Sandbox("tests.unit.verifiers:loaded") as running:
        assert running.call(time_limit_s=60.0).value == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence (own_start.py, line 1)"),
        ("import os; os._exit(5)", "exit code 5"),
        ("", "AttributeError: module 'own_start' has no attribute 'f'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_apart_from_a_failing_call(
    tmp_path, monkeypatch, source, reason
):
    (tmp_path / "own_start.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with Sandbox("own_start:f") as running, pytest.raises(CannotStart) as caught:
        running.call(time_limit_s=60.0)
    assert reason in str(caught.value)


def test_a_file_in_the_current_folder_does_not_hide_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "own_hiding.py").write_text("import psutil\ndef f():\n    return psutil.__name__")
    (tmp_path / "psutil.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    with Sandbox("own_hiding:f") as running:
        assert running.call(time_limit_s=60.0).value == "psutil"


def test_no_descriptor_is_left_open():
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list descriptors")
    before = opened()
    for _ in range(3):
        with Sandbox(VERIFY) as running:
            call(running, "a")
            call(running, "os._exit")
            call(running, "a")
    deadline = time.monotonic() + 20
    while (
        opened() > before and time.monotonic() < deadline
    ):  # the thread that reads the output closes its end
        time.sleep(0.05)
    assert opened() <= before, os.listdir("/proc/self/fd")
