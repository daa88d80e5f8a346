"""Pruning a store: what is kept and why, on a disk and in a bucket, beside runs under way, and killed in the middle."""

import fcntl
import json
import time
from pathlib import Path

import pytest

from flows.__main__ import main
from tasks.core.store import Store
from tasks.promotion.registry import ModelRegistry
from tasks.prune.config import PruneConfig
from tasks.prune.inventory import take_inventory
from tasks.prune.plan import make_plan
from tasks.prune.references import Referred, referred
from tasks.prune.removing import remove
from tests.mlflow_file import new_tracking
from tests.s3_server import s3_server
from tests.unit.test_promotion_registry import weights

ALL = PruneConfig(age_days=0.0, recent_runs=0)


def key(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        yield new_tracking(folder)


@pytest.fixture(scope="module")
def bucket():
    with s3_server("artifacts") as client:
        yield client


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    request.getfixturevalue("bucket")
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
    return Store(f"s3://artifacts/{tmp_path.name}")


def publish(store: Store, scratch: Path, number: int, *, user: str = "", names: int | None = None) -> None:
    """A result of stage `sft`, used by a run, whose reference may lie in another result."""
    out = scratch / f"out{number}"
    out.mkdir()
    (out / "weights").write_bytes(b"0" * 1000)
    if user:
        store.use("sft", key(number), user)
    base = f"{store.root}/sft/{key(names)}/attempt" if names is not None else ""
    store.publish("sft", key(number), out, {"model": f"{out}/weights", "base": base})


def plan(store: Store, found: Referred, config: PruneConfig = ALL, now: float | None = None):
    """Numbers of the results that are kept, with the reasons, and of those that are not."""
    made = make_plan(take_inventory(store), found, config, now)
    kept = {int(folder.split("/")[1], 16): reason for folder, reason in made.kept.items()}
    return kept, {int(entry.key, 16) for entry in made.removable}


def test_what_models_runs_and_kept_results_refer_to_stays(store, tracking, tmp_path):
    champion, old, running, waiting, recent = (tracking.start("retrain") for _ in range(5))
    for ended in (champion, old, recent):
        tracking.finish(ended)
    tracking.suspend(waiting)
    publish(store, tmp_path, 1, user=champion, names=2)
    publish(store, tmp_path, 2)  # the champion's base
    publish(store, tmp_path, 3, user=old, names=2)
    publish(store, tmp_path, 4, user=running)
    publish(store, tmp_path, 5, user=waiting)
    publish(store, tmp_path, 6, user=recent)
    publish(store, tmp_path, 7, user="of another MLflow")
    publish(store, tmp_path, 8)  # named by a tag of a version
    publish(store, tmp_path, 9)
    registry = ModelRegistry(tracking, f"of {tmp_path.name} {store.remote}")
    registry.create()
    registry.register(
        weights("one"),
        work="one",
        promoted=False,
        parent="",
        run_id=champion,
        source="model",
        tags={"data.version": f'{{"uri": "{store.root}/sft/{key(8)}/attempt/rows.jsonl"}}'},
    )
    kept, removable = plan(store, referred(tracking, 1), PruneConfig(age_days=0.0))
    assert removable == {3, 9}
    assert kept == {
        1: "registered model",
        2: "named by a kept result",
        4: "run under way",
        5: "run under way",
        6: "recent run",
        7: "run that this MLflow does not know",
        8: "registered model",
    }
    kept, removable = plan(store, referred(tracking, 0))
    assert removable == {3, 6, 9}
    _, removable = plan(store, referred(tracking, 0), PruneConfig(age_days=1.0))
    assert removable == set()
    _, removable = plan(store, referred(tracking, 0), PruneConfig(age_days=1.0), now=time.time() + 90_000)
    assert removable == {3, 6, 9}
    for run in (running, waiting):
        tracking.finish(run)


def test_a_removed_result_is_gone_and_the_others_are_whole(store, tmp_path):
    publish(store, tmp_path, 1, user="a")
    publish(store, tmp_path, 2, user="b")
    if not store.remote:
        (tmp_path / "store" / "records").mkdir()
    store.write(f"records/sft-{key(1)}", b"{}")
    entry = take_inventory(store)[0]
    assert entry.size > 1000
    assert remove(store, entry)
    assert [one.key for one in take_inventory(store)] == [key(2)]
    assert not [name for name in store.listing() if key(1) in name]  # the record went along
    assert store.find("sft", key(1)) is None
    other = store.find("sft", key(2))
    assert other is not None
    store.verify(other)


def test_a_run_that_comes_to_use_a_result_meanwhile_keeps_it(store, tmp_path):
    publish(store, tmp_path, 1, user="old")
    (entry,) = take_inventory(store)
    store.use("sft", key(1), "new")
    assert not remove(store, entry)
    kept = store.find("sft", key(1))
    assert kept is not None
    store.verify(kept)


@pytest.mark.parametrize("finished", [False, True])
def test_what_a_failed_run_left_stays_when_the_same_is_run_again_meanwhile(store, tmp_path, finished):
    store.use("sft", key(1), "failed")
    (entry,) = take_inventory(store)
    assert entry.kind == "left"
    store.use("sft", key(1), "again")
    if finished:
        publish(store, tmp_path, 1, user="failed")
    assert not remove(store, entry)
    (entry,) = take_inventory(store)
    assert entry.kind == ("result" if finished else "left")
    assert entry.users == {"failed", "again"}


def test_a_result_that_another_prune_removes_is_left_to_it(store, tmp_path):
    publish(store, tmp_path, 1, user="old")
    (entry,) = take_inventory(store)
    store.remove(f"{entry.folder}/manifest.json")
    assert not remove(store, entry)


def test_what_a_kill_left_is_no_result_and_goes_the_next_time(tmp_path):
    store = Store(str(tmp_path / "store"))
    publish(store, tmp_path, 1, user="gone")
    store.condemn("sft", key(1))  # a removal that was killed after its first step
    publish(store, tmp_path, 2, user="there")
    beside = tmp_path / "store" / "sft" / key(2) / "abc"
    beside.mkdir()
    (beside / "half").write_text("half")  # an attempt that was killed before its manifest
    for number in (3, 4):
        work = tmp_path / "store" / "work" / "sft" / key(number)
        work.mkdir(parents=True)
        (work / "checkpoint").write_text("checkpoint")
    (tmp_path / "store" / "sft" / key(5)).mkdir()
    (tmp_path / "store" / "sft" / key(5) / "manifest.json").write_text("{")  # no manifest: it cannot be read
    store.use("sft", key(3), "working")  # on another machine, to judge by the lock
    entries = take_inventory(store)
    assert [(one.kind, one.folder.split("/")[0], int(one.key, 16)) for one in entries] == [
        ("left", "sft", 1),
        ("result", "sft", 2),
        ("left", "sft", 2),
        ("left", "sft", 3),
        ("left", "sft", 5),
        ("left", "work", 3),
        ("left", "work", 4),
    ]
    recent = Referred(
        runs={"recent run": {"there"}, "run under way": {"working"}},
        keys={"recent run": set(), "run under way": set()},
        known={"there", "gone", "working"},
    )
    made = make_plan(entries, recent, ALL)
    kept = [f"sft/{key(2)}", f"sft/{key(3)}", f"work/sft/{key(3)}"]
    assert [one.folder for one in entries if one.folder in made.kept] == kept
    with (tmp_path / "store" / "work" / "sft" / f"{key(4)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a stage that works right now
        assert [remove(store, one) for one in made.removable] == [True, True, True, False]
    assert [one.folder for one in take_inventory(store)] == [*kept, f"work/sft/{key(4)}"]


def prune(capsys, *flags: str) -> tuple[int, dict, str]:
    code = main(["prune", *flags])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]) if code == 0 else {}, captured.err


def test_the_command_removes_only_when_told(tracking, tmp_path, capsys):
    store = Store(str(tmp_path / "store"))
    run = tracking.start("llm2llm")
    publish(store, tmp_path, 1, user=run)
    tracking.finish(run)
    flags = [f"--store={store.root}", f"--tracking.uri={tracking.uri}", "--recent_runs=0"]
    code, found, told = prune(capsys, *flags, "--remove")
    assert (code, found["removable"], found["kept"]) == (0, [], {"written or used lately": 1})
    code, found, told = prune(capsys, *flags, "--age_days=0")
    assert (found["removable_bytes"] > 1000, found["removed"]) == (True, 0)
    assert "--remove" in told
    assert store.find("sft", key(1)) is not None
    code, found, _ = prune(capsys, *flags, "--age_days=0", "--remove")
    assert (found["removed"], found["removed_bytes"] > 1000) == (1, True)
    assert store.find("sft", key(1)) is None
    code, found, _ = prune(capsys, *flags, "--age_days=0", "--remove")  # the folder is there, and empty
    assert (code, found["removed"]) == (0, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--store=/nowhere/at/all"], "store: there is nothing at /nowhere/at/all"),
        (["--age_days=-1"], "age_days: "),
        (["--removed"], "unknown flag --removed"),
    ],
)
def test_a_mistake_removes_nothing(tracking, capsys, flags, message):
    code, _, told = prune(capsys, f"--tracking.uri={tracking.uri}", "--remove", *flags)
    assert (code, message in told, "Traceback" in told) == (2, True, False)
