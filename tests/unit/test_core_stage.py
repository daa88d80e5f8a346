"""A stage is computed once per content, wherever it runs, whoever asks at once, and whatever was killed before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.examples import read_examples, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Stage, compute, is_whole
from tasks.core.store import Store


class ShoutConfig(Config):
    """Settings of a stage that writes its rows in capitals."""

    mark: str = "!"
    """What stands after every input."""
    diary: str = Field("", json_schema_extra=PLACEMENT)
    """A file that gets a line for every computation."""
    hold: str = Field("", json_schema_extra=PLACEMENT)
    """A file; as long as it exists, the computation does not end."""


class ShoutInputs(BaseModel):
    rows: DatasetRef


class ShoutResult(BaseModel):
    rows: DatasetRef
    left_over: list[str]
    """What an earlier attempt had left in the folder."""


def shout(config: ShoutConfig, inputs: ShoutInputs, out: Path, report) -> ShoutResult:
    left_over = sorted(path.name for path in out.iterdir())
    with open(config.diary, "a") as diary:
        diary.write(f"{os.getpid()}\n")
    (out / "half").write_text("half")
    report({"step": 1, "train/loss": 0.5})
    while config.hold and Path(config.hold).exists():
        time.sleep(0.02)
    (out / "half").unlink()
    rows = [
        row.model_copy(update={"input": row.input.upper() + config.mark})
        for row in read_examples(inputs.rows)
    ]
    return ShoutResult(rows=write_rows(out / "rows.jsonl", rows), left_over=left_over)


STAGE = Stage("shout", shout, ShoutConfig, ShoutInputs, ShoutResult, own_process=True)
HERE = Stage("shout_here", shout, ShoutConfig, ShoutInputs, ShoutResult)
QUICK = LaunchConfig(grace_s=1)


class Bench:
    """A store, one row of data, and the diary of what was computed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.diary = folder, Store(f"{folder}/store"), folder / "diary"
        self.inputs = ShoutInputs(
            rows=write_rows(folder / "rows.jsonl", [{"id": "1", "input": "hello", "target": "a"}])
        )
        self.events: list[dict] = []

    def config(self, **changes) -> ShoutConfig:
        return ShoutConfig(diary=str(self.diary), **changes)

    def compute(self, stage=HERE, inputs=None, **changes):
        return compute(
            stage, self.config(**changes), inputs or self.inputs, self.store, QUICK, self.events.append
        )

    def computations(self) -> int:
        return len(self.diary.read_text().splitlines()) if self.diary.exists() else 0

    def texts(self, manifest) -> list[str]:
        return [row.input for row in read_examples(DatasetRef(**manifest.result["rows"]))]

    def start_elsewhere(self, hold: Path) -> subprocess.Popen:
        """The in-process stage computed by another process, in a group of its own."""
        program = (
            "import sys; from pathlib import Path; from tests.unit.test_core_stage import Bench;"
            "Bench(Path(sys.argv[1])).compute(hold=sys.argv[2])"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program, str(self.folder), str(hold)], start_new_session=True
        )

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while self.computations() < count:
            assert time.monotonic() < deadline, "nothing was computed in a minute"
            time.sleep(0.02)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_stage_computes_once_and_is_found_afterwards(bench):
    first, second = bench.compute(), bench.compute()
    assert bench.texts(first) == ["HELLO!"]
    assert (second, bench.computations()) == (first, 1)
    assert not bench.store.work_folder("shout_here", first.key).exists()


def test_in_its_own_process_a_stage_gives_the_same_files_and_events(bench):
    here, own = bench.compute(HERE), bench.compute(STAGE)
    assert own.files == here.files
    assert own.result["rows"]["digest"] == here.result["rows"]["digest"]
    pids = bench.diary.read_text().split()
    assert pids[0] == str(os.getpid())
    assert pids[1] != str(os.getpid())
    assert [event.get("train/loss") for event in bench.events if "step" in event] == [0.5, 0.5]
    assert sum("seconds" in event for event in bench.events) == 2


def test_another_configuration_is_another_result_but_where_it_runs_does_not_count(bench):
    key = HERE.key(bench.config(), bench.inputs)
    assert HERE.key(bench.config(mark="?"), bench.inputs) != key
    assert HERE.key(ShoutConfig(diary="/elsewhere", hold="no"), bench.inputs) == key


def test_only_the_content_of_the_inputs_counts(bench, tmp_path):
    rows = bench.inputs.rows
    key = HERE.key(bench.config(), bench.inputs)
    moved = rows.model_copy(update={"uri": "s3://elsewhere/rows.jsonl", "facts": {"mean": 3}, "rows": 7})
    changed = rows.model_copy(update={"digest": "0" * 64})
    assert HERE.key(bench.config(), ShoutInputs(rows=moved)) == key
    assert HERE.key(bench.config(), ShoutInputs(rows=changed)) != key


def test_an_adapter_counts_with_its_base():
    class Inputs(BaseModel):
        model: ModelRef

    stage = Stage("any", shout, ShoutConfig, Inputs, ShoutResult)

    def key(base_digest: str, uri: str) -> str:
        base = ModelRef(uri=uri, digest=base_digest)
        return stage.key(ShoutConfig(), Inputs(model=ModelRef(uri="a", digest="adapter", base=base)))

    assert key("one", "here") == key("one", "there")
    assert key("one", "here") != key("two", "here")


def test_the_name_of_the_stage_counts(bench):
    assert HERE.key(bench.config(), bench.inputs) != STAGE.key(bench.config(), bench.inputs)


def test_a_damaged_result_is_named_and_computed_again(bench, capsys):
    first = bench.compute()
    path = Path(first.result["rows"]["uri"])
    path.write_text(path.read_text().replace("HELLO", "JELLO"))
    second = bench.compute()
    assert f"damaged artifact {path.parent}: rows.jsonl" in capsys.readouterr().err
    assert (second.files, bench.computations()) == (first.files, 2)
    assert bench.texts(second) == ["HELLO!"]
    assert path.exists(), "the damaged file stays for inspection"


def test_an_undamaged_result_is_whole_and_a_missing_one_is_not(bench):
    manifest = bench.compute()
    assert is_whole(bench.store, HERE, manifest.key)
    assert not is_whole(bench.store, HERE, "other")


def test_a_moved_store_repeats_nothing(bench, tmp_path):
    bench.compute()
    shutil.move(tmp_path / "store", tmp_path / "moved")
    bench.store = Store(str(tmp_path / "moved"))
    assert bench.texts(bench.compute()) == ["HELLO!"]
    assert bench.computations() == 1


def test_two_threads_at_once_compute_once(bench):
    results = []
    threads = [threading.Thread(target=lambda: results.append(bench.compute())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.attempt for result in results}) == 1
    assert bench.computations() == 1


def test_two_processes_at_once_compute_once(bench, tmp_path):
    hold = tmp_path / "hold"
    hold.touch()
    other = bench.start_elsewhere(hold)
    bench.wait_for(1)
    result: list = []
    waiting = threading.Thread(target=lambda: result.append(bench.compute()))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive(), "the second caller must wait for the first"
    hold.unlink()
    waiting.join(60)
    assert other.wait(60) == 0
    assert bench.texts(result[0]) == ["HELLO!"]
    assert bench.computations() == 1


def test_after_kill_9_in_the_middle_the_next_call_computes_anew(bench, tmp_path):
    hold = tmp_path / "hold"
    hold.touch()
    other = bench.start_elsewhere(hold)
    bench.wait_for(1)
    os.killpg(other.pid, signal.SIGKILL)
    other.wait(60)
    key = HERE.key(bench.config(), bench.inputs)
    assert (bench.store.work_folder("shout_here", key) / "out" / "half").exists()
    assert bench.store.find("shout_here", key) is None
    manifest = bench.compute()
    assert (manifest.result["left_over"], bench.texts(manifest)) == ([], ["HELLO!"])
    assert [file.name for file in manifest.files] == ["rows.jsonl"]
    assert bench.computations() == 2


def test_a_stage_that_fails_leaves_no_result_and_may_be_tried_again(bench):
    gone = ShoutInputs(rows=DatasetRef(uri=str(bench.folder / "gone"), digest="0", rows=1))
    with pytest.raises(Exception, match="not there"):
        bench.compute(inputs=gone)
    assert bench.store.find("shout_here", HERE.key(bench.config(), gone)) is None
    with pytest.raises(Exception, match="not there"):
        bench.compute(STAGE, inputs=gone)


def test_the_key_is_the_same_in_another_process(bench):
    program = (
        "import sys, json; from tests.unit.test_core_stage import *;"
        "print(HERE.key(ShoutConfig(), ShoutInputs.model_validate_json(sys.argv[1])))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, json.dumps(bench.inputs.model_dump())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == HERE.key(bench.config(), bench.inputs)
