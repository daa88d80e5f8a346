"""Evaluation in shards: in threads, in processes and on Ray the same as whole; workers that are killed half way."""

import os
import shutil
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tasks.core.examples import read_records
from tasks.core.fan_out import FanOutConfig
from tests.flows.sharded import evaluated, write_test
from tests.flows.test_mapped_stages import LOUD, TEXTS, Mapped

pytestmark = pytest.mark.usefixtures("prefect_server")
needs_ray = pytest.mark.skipif(
    not (find_spec("ray") and find_spec("prefect_ray")), reason="Ray is not installed (the extra `ray`)"
)
SECRET = "planted-0123456789"


def manifests(folder: Path) -> dict[str, int]:
    """Every finished result with the time it was finished at."""
    return {str(path): path.stat().st_mtime_ns for path in (folder / "store").glob("*/*/manifest.json")}


def computed(folder: Path) -> dict[str, int]:
    """How many results of each stage there are."""
    found = [Path(name).parts[-3] for name in manifests(folder)]
    return {stage: found.count(stage) for stage in sorted(set(found))}


def without_places(result):
    return {
        name: split.model_dump(exclude={"predictions"}) | {"digest": split.predictions.digest}
        for name, split in result.splits.items()
    }


@pytest.fixture(scope="module")
def whole(tiny_ref, tmp_path_factory, prefect_server):
    """Two data sets, the folder of a run that evaluated them whole, and its result; read only."""
    folder = tmp_path_factory.mktemp("whole")
    splits = {"test": write_test(folder), "train": write_test(folder / "train", 5)}
    return splits, folder, evaluated(folder, tiny_ref, splits)


@pytest.mark.slow
def test_shards_in_threads_give_what_the_whole_gives_and_the_next_run_finds_it(whole, tiny_ref, tmp_path):
    splits, folder, expected = whole
    assert computed(folder) == {"evaluate": 1}
    result = evaluated(tmp_path, tiny_ref, splits, rows_per_shard=8)
    assert without_places(result) == without_places(expected)
    rows = [list(read_records(ref)) for ref in (result.splits["test"].predictions, splits["test"])]
    assert [row["input"] for row in rows[0]] == [row["input"] for row in rows[1]]
    # The whole one, put together, lies where it would lie without shards.
    assert computed(tmp_path) == {"cut": 1, "evaluate": 3 + 1 + 1}
    keys = [{Path(name).parts[-2] for name in manifests(place)} for place in (folder, tmp_path)]
    assert keys[0] < keys[1]
    before = manifests(tmp_path)
    assert evaluated(tmp_path, tiny_ref, splits) == result
    assert evaluated(tmp_path, tiny_ref, splits, rows_per_shard=5) == result
    assert manifests(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["processes", pytest.param("ray", marks=needs_ray)])
def test_elsewhere_it_is_the_same_and_a_lost_shard_alone_is_computed_again(
    whole, tiny_ref, tmp_path, runner, monkeypatch
):
    splits, _, expected = whole
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    handler = signal.getsignal(signal.SIGTERM)
    fan_out = {"runner": runner, "rows_per_shard": 8, "at_once": 2}
    begun = time.time()
    result = evaluated(tmp_path, tiny_ref, splits, **fan_out)
    assert without_places(result) == without_places(expected)
    assert signal.getsignal(signal.SIGTERM) is handler  # by which a run is cancelled
    before = manifests(tmp_path)
    assert evaluated(tmp_path, tiny_ref, splits, **fan_out) == result
    assert manifests(tmp_path) == before

    sizes = {name: len(list(Path(name).parent.glob("*/*.jsonl"))) for name in before if "/evaluate/" in name}
    joined = next(name for name, files in sizes.items() if files == 2)
    shard = next(name for name, files in sizes.items() if files == 1)
    for lost in (joined, shard):
        shutil.rmtree(Path(lost).parent)
    again = evaluated(tmp_path, tiny_ref, splits, **fan_out)
    assert without_places(again) == without_places(expected)
    after = manifests(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {joined, shard}

    logs = [path for path in Path("/tmp/ray").glob("session_*/logs/**/*") if path.is_file()]
    logs = [path for path in logs if path.stat().st_mtime >= begun]
    assert bool(logs) == (runner == "ray")
    assert [str(path) for path in logs if SECRET.encode() in path.read_bytes()] == []


class OnRay(Mapped):
    """Flows whose configuration says that they run on Ray."""

    fan_out = FanOutConfig(runner="ray", at_once=2)

    def config(self):
        return super().config().model_copy(update={"fan_out": self.fan_out})


@pytest.mark.slow
@needs_ray
def test_a_killed_ray_workers_call_runs_again(tmp_path):
    mapped, killed = OnRay(tmp_path), []

    def kill() -> None:
        while len(mapped.lines()) < 2:
            time.sleep(0.05)
        killed.append(int(mapped.diary.read_text().split()[2]))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    # Both wait for a third call to begin, and there is none but the one that begins again.
    assert mapped.run(TEXTS[:2], together=3, at_once=2) == LOUD[:2]
    assert killed[0] not in (os.getpid(), *map(int, mapped.diary.read_text().split()[-1:]))
    assert [word for word, _ in mapped.lines()] == ["begin"] * 3 + ["end"] * 2
    assert sorted(mapped.arrived) == [(0, "ONE"), (1, "TWO")]
    before = mapped.lines()
    assert mapped.run(TEXTS[:2], at_once=2) == LOUD[:2]
    assert mapped.lines() == before
