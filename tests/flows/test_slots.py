"""GPU slots on a real Prefect server: calls that load a model take turns, wherever they run; others do not wait."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from prefect import flow

from tasks.core.slots import GPU_SLOTS, NEXT_IN_LINE, gpu_slot
from tests.asking_again import PREFECT_CLIENT
from tests.flows.mapped_stage import STAGE
from tests.flows.test_mapped_stages import LOUD, TEXTS, Mapped, most_under_way

HEAVY = replace(STAGE, own_process=True)


class Limits:
    """The limits of GPU slots on a server, as `make up` makes them."""

    def __init__(self, api: str) -> None:
        self.url = f"{api}/v2/concurrency_limits"

    def make(self, slots: int) -> None:
        for name, limit in ((GPU_SLOTS, slots), (NEXT_IN_LINE, 1)):
            PREFECT_CLIENT.post(f"{self.url}/", json={"name": name, "limit": limit}).raise_for_status()

    def take(self) -> str:
        """Take a slot as another run would; its lease."""
        body = {"names": [GPU_SLOTS], "slots": 1, "lease_duration": 600}
        answer = PREFECT_CLIENT.post(f"{self.url}/increment-with-lease", json=body)
        answer.raise_for_status()
        return str(answer.json()["lease_id"])

    def give_back(self, lease: str) -> None:
        PREFECT_CLIENT.post(f"{self.url}/decrement-with-lease", json={"lease_id": lease}).raise_for_status()

    def taken(self, name: str = GPU_SLOTS) -> int:
        return int(PREFECT_CLIENT.get(f"{self.url}/{name}").json()["active_slots"])

    def remove(self) -> None:
        for name in (GPU_SLOTS, NEXT_IN_LINE):
            PREFECT_CLIENT.delete(f"{self.url}/{name}")


@pytest.fixture
def limits(prefect_server) -> Iterator[Limits]:
    limits = Limits(prefect_server)
    yield limits
    limits.remove()


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_where_there_is_no_limit_nothing_is_taken(limits):
    said: list[str] = []
    with gpu_slot(said.append):
        assert PREFECT_CLIENT.get(f"{limits.url}/{GPU_SLOTS}").status_code == 404
    assert said == []


@pytest.mark.slow
def test_with_two_slots_two_calls_run_side_by_side_and_never_three(limits, tmp_path):
    limits.make(2)
    mapped = Mapped(tmp_path)
    # The first call ends only when a second has begun.
    assert mapped.run(TEXTS[:3], stage=HEAVY, at_once=3, together=2) == LOUD[:3]
    assert most_under_way(mapped.lines()) == 2
    assert (limits.taken(), limits.taken(NEXT_IN_LINE)) == (0, 0)


def test_a_call_without_a_model_and_a_result_that_is_there_wait_for_nobody(limits, tmp_path):
    limits.make(1)
    mapped = Mapped(tmp_path)
    mapped.run(["one"], stage=HEAVY)
    limits.take()
    assert mapped.run(["one"], stage=HEAVY) == ["ONE"]
    elsewhere = replace(HEAVY, loads_model=said_by_a_server)
    assert mapped.run(["two"], stage=elsewhere) == ["TWO"]
    assert mapped.run(["three"], stage=STAGE) == ["THREE"]
    assert limits.taken() == 1


def said_by_a_server(config: Any, inputs: Any) -> bool:
    return False


@pytest.mark.slow
def test_two_flows_share_one_slot_say_that_they_wait_and_both_end(limits, tmp_path, capfd):
    limits.make(1)
    lease = limits.take()
    flows = [Mapped(tmp_path / name) for name in ("first", "second")]
    diary = tmp_path / "diary.txt"
    diary.touch()
    for mapped in flows:
        mapped.diary = diary
    threads = [
        in_thread(partial(mapped.run, texts, stage=HEAVY))
        for mapped, texts in zip(flows, (["one", "two"], ["three", "four"]), strict=True)
    ]
    deadline, told = time.monotonic() + 120, ""
    while not all(f"shout {text}: waits for a GPU slot, of 1" in told for text in ("one", "three")):
        assert time.monotonic() < deadline, told
        told += capfd.readouterr().err
    assert diary.read_text() == ""
    limits.give_back(lease)
    for thread in threads:
        thread.join()
    lines = flows[0].lines()
    assert most_under_way(lines) == 1
    assert sorted(text for word, text in lines if word == "end") == ["four", "one", "three", "two"]
    assert limits.taken() == 0


def test_that_a_slot_is_taken_is_said_and_is_no_error_in_the_log(limits):
    limits.make(1)
    lease = limits.take()
    said: list[str] = []
    logged: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("prefect._internal.concurrency")
    handler.emit = logged.append  # type: ignore[method-assign]
    logger.addHandler(handler)

    def wait() -> None:
        with gpu_slot(said.append):
            pass

    try:
        thread = in_thread(wait)
        while not said:
            time.sleep(0.05)
        limits.give_back(lease)
        thread.join(60)
    finally:
        logger.removeHandler(handler)
    assert not thread.is_alive()
    assert said == ["waits for a GPU slot, of 1 (0 s so far)"]
    assert logged == []


STOPPED = """
import sys
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from tasks.core.slots import GPU_SLOTS, gpu_slot

with get_client(sync_client=True) as client:
    limit = GlobalConcurrencyLimitCreate(name=GPU_SLOTS, limit=1, active_slots=1)
    client.create_global_concurrency_limit(limit)
    assert client.read_global_concurrency_limit_by_name(GPU_SLOTS).active_slots == 1
with gpu_slot(sys.exit):
    print("not waited")
"""


@pytest.mark.slow
def test_on_a_temporary_server_a_slot_that_was_taken_when_the_lasting_one_stopped_keeps_nobody_waiting(
    tmp_path,
):
    environment = os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("not waited\n", 0), done.stderr


def test_a_call_that_fails_gives_its_slot_back(limits, tmp_path):
    limits.make(1)
    with pytest.raises(Exception, match="cannot be said"):
        Mapped(tmp_path).run(["two"], stage=HEAVY, broken="two")
    assert limits.taken() == 0


def test_who_gives_a_slot_back_lets_the_next_in_line_come_before_it_takes_another(limits):
    limits.make(1)
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with gpu_slot(lambda words: waits.set()):
            order.append("second")

    @flow
    def first() -> None:
        with gpu_slot(print):
            thread = in_thread(second)
            waits.wait()
        with gpu_slot(print):
            order.append("first")
        thread.join()

    first()
    assert order == ["second", "first"]
