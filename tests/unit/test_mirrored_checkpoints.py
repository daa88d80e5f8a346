"""Checkpoints in the store (moto's server): whole ones only, manifest last, back on a machine that has none."""

import errno
import json
import os
import shutil
import threading
import time

import pytest

from tasks.core import mirrored_checkpoints
from tasks.core.digests import folder_digest
from tasks.core.mirrored_checkpoints import mirror_now, mirrored, restore
from tasks.core.store import Store
from tests.s3_server import s3_server

ROOT = "train/key/checkpoints"


@pytest.fixture(scope="module")
def client():
    with s3_server("bucket") as client:
        yield client


@pytest.fixture
def store(client, tmp_path):
    return Store(f"s3://bucket/{tmp_path.name}")


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


def write(work, name, mark="whole.json", **files):
    folder = work / "checkpoints" / name
    folder.mkdir(parents=True)
    for file, text in ({"weights.bin": name} | files).items():
        (folder / file).write_text(text)
    if mark:
        (folder / mark).write_text("{}")


def lost(work):
    """The machine is gone."""
    shutil.rmtree(work)


def names(work):
    folder = work / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_whole_checkpoints_come_back_with_the_same_bytes(store, work):
    write(work, "checkpoint-10")
    write(work, "checkpoint-20")
    write(work, "step-30", mark="state.json")
    write(work, "checkpoint-40", mark="")  # torn
    write(work, "torn-50", mark="state.json")
    assert mirror_now(store, ROOT, work / "checkpoints")
    before = {name: folder_digest(work / "checkpoints" / name) for name in [*names(work)[:2], "step-30"]}
    lost(work)
    restore(store, ROOT, work / "checkpoints")
    assert names(work) == ["checkpoint-10", "checkpoint-20", "step-30"]
    assert {name: folder_digest(work / "checkpoints" / name) for name in names(work)} == before


def test_the_mirror_follows_and_keeps_only_what_is_here(store, work):
    write(work, "checkpoint-10")
    mirror_now(store, ROOT, work / "checkpoints")
    assert not mirror_now(store, ROOT, work / "checkpoints")
    first = set(store.listing(ROOT))
    write(work, "checkpoint-20")
    mirror_now(store, ROOT, work / "checkpoints")
    kept = {name for name in first if "/checkpoint-10-" in name}
    assert len(kept) == 2
    assert kept < set(store.listing(ROOT))  # and was not copied again
    shutil.rmtree(work / "checkpoints" / "checkpoint-10")
    mirror_now(store, ROOT, work / "checkpoints")
    listed = sorted(name.split("/")[3].rpartition("-")[0] or name for name in store.listing(ROOT))
    assert listed == ["20", "checkpoint-20", "checkpoint-20"]


def test_without_hard_links_checkpoints_are_copied(store, work, monkeypatch):
    monkeypatch.setattr(os, "link", _refusing(errno.EPERM))
    write(work, "checkpoint-10")
    assert mirror_now(store, ROOT, work / "checkpoints")
    before = folder_digest(work / "checkpoints" / "checkpoint-10")
    lost(work)
    restore(store, ROOT, work / "checkpoints")
    assert folder_digest(work / "checkpoints" / "checkpoint-10") == before


def test_what_a_disk_refuses_is_no_checkpoint_that_went(store, work, monkeypatch):
    monkeypatch.setattr(os, "link", _refusing(errno.EPERM))
    monkeypatch.setattr(shutil, "copy2", _refusing(errno.ENOSPC))
    write(work, "checkpoint-10")
    with pytest.raises(OSError, match="No space left"):
        mirror_now(store, ROOT, work / "checkpoints")


def _refusing(code):
    def refuse(*arguments, **keywords):
        raise OSError(code, os.strerror(code))

    return refuse


def test_without_its_manifest_a_mirror_does_not_exist(store, work):
    write(work, "checkpoint-10")
    mirror_now(store, ROOT, work / "checkpoints")
    store.remove(
        next(name for name in store.listing(ROOT) if name.endswith(".json") and name.count("/") == 3)
    )
    lost(work)
    restore(store, ROOT, work / "checkpoints")
    assert names(work) == []


def test_a_damaged_mirror_is_passed_by(store, work, capsys):
    write(work, "checkpoint-10")
    mirror_now(store, ROOT, work / "checkpoints")
    store.write(next(name for name in store.listing(ROOT) if name.endswith("weights.bin")), b"checkpoint-11")
    lost(work)
    restore(store, ROOT, work / "checkpoints")
    assert names(work) == []
    assert "damaged" in capsys.readouterr().err


def test_what_is_here_stays_unless_the_store_has_a_newer_one(store, work, tmp_path):
    write(work, "checkpoint-20")
    mirror_now(store, ROOT, work / "checkpoints")
    for here, found in ((30, "checkpoint-30"), (20, "checkpoint-20"), (10, "checkpoint-20")):
        other = tmp_path / f"other-{here}"
        write(other, f"checkpoint-{here}", mine="yes")
        restore(store, ROOT, other / "checkpoints")
        assert names(other) == [found]
        assert (other / "checkpoints" / found / "mine").exists() == (here >= 20)


def test_the_best_checkpoint_is_named_where_it_lies_now(store, work, tmp_path):
    best = str(work / "checkpoints" / "checkpoint-10")
    state = json.dumps({"best_model_checkpoint": best, "log_history": [{"loss": 0.5}]})
    write(work, "checkpoint-10", **{"trainer_state.json": state})
    mirror_now(store, ROOT, work / "checkpoints")
    there = tmp_path / "another machine" / "checkpoints"
    restore(store, ROOT, there)
    read = json.loads((there / "checkpoint-10" / "trainer_state.json").read_text())
    assert read == {"best_model_checkpoint": str(there / "checkpoint-10"), "log_history": [{"loss": 0.5}]}


def test_a_stage_is_followed_while_it_runs(store, work, monkeypatch):
    monkeypatch.setattr(mirrored_checkpoints, "POLL_S", 0.05)

    def until(true):
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with mirrored(store, "train", "key", work):
        write(work, "checkpoint-10")
        until(lambda: any("/10-" in name for name in store.listing(ROOT)))
    lost(work)
    with mirrored(store, "train", "key", work):
        assert names(work) == ["checkpoint-10"]
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoints"]


def test_a_store_that_fails_does_not_end_the_stage(store, work, monkeypatch, capsys):
    from tests.faulty_s3 import Fault, FaultyS3

    monkeypatch.setattr(mirrored_checkpoints, "POLL_S", 0.05)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    def refuse(seen):
        return Fault(status=403, code="AccessDenied") if seen.method == "PUT" else None

    said = ""
    with FaultyS3(os.environ["AWS_ENDPOINT_URL"], refuse):
        failing = Store(store.root)
        with mirrored(failing, "train", "key", work):
            write(work, "checkpoint-10")
            deadline = time.monotonic() + 60
            while "not mirrored" not in said:
                assert time.monotonic() < deadline
                said += capsys.readouterr().err
                time.sleep(0.05)
    assert names(work) == ["checkpoint-10"]


class Ended(Exception):
    """What ends a stage that is asked to end."""


def end_early(store, work, wait=None):
    """A stage that ends by an error right behind a checkpoint, or when it has waited for something."""
    with mirrored(store, "train", "key", work):
        write(work, "checkpoint-10")
        assert wait is None or wait.wait(60)
        raise Ended


def manifests(store):
    return [name for name in store.listing(ROOT) if name.endswith(".json") and name.count("/") == 3]


def test_what_a_stage_leaves_as_it_ends_early_is_mirrored_before_its_error_goes_on(store, work):
    with pytest.raises(Ended):
        end_early(store, work)
    lost(work)
    restore(store, ROOT, work / "checkpoints")
    assert names(work) == ["checkpoint-10"]


def test_what_is_on_its_way_as_a_stage_ends_early_arrives(store, work, monkeypatch):
    from tests.faulty_s3 import Fault, FaultyS3

    monkeypatch.setattr(mirrored_checkpoints, "POLL_S", 0.05)
    under_way = threading.Event()

    def slow(seen):
        if seen.method != "PUT":
            return None
        under_way.set()
        return Fault(delay_s=1.0)

    with FaultyS3(os.environ["AWS_ENDPOINT_URL"], slow) as proxy:
        slowly = Store(store.root)
        with pytest.raises(Ended):
            end_early(slowly, work, under_way)
        sent = [seen.target for seen in proxy.seen if seen.method == "PUT" and "weights" in seen.target]
    assert len(sent) == 1  # it was not begun again
    assert len(manifests(Store(store.root))) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [({"status": 403, "code": "AccessDenied"}, "AccessDenied"), ({"delay_s": 3.0}, "longer than 0.2 s")],
)
def test_a_stage_that_ends_early_says_what_kept_its_last_checkpoint_from_the_store(
    store, work, monkeypatch, capsys, fault, said
):
    from tests.faulty_s3 import Fault, FaultyS3

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if "delay_s" in fault:
        monkeypatch.setattr(mirrored_checkpoints, "LAST_S", 0.2)
    refuse = FaultyS3(
        os.environ["AWS_ENDPOINT_URL"], lambda seen: Fault(**fault) if seen.method == "PUT" else None
    )
    with refuse:
        failing = Store(store.root)
        with pytest.raises(Ended):
            end_early(failing, work)
    message = capsys.readouterr().err
    assert "checkpoints are not mirrored" in message
    assert said in message
    assert manifests(Store(store.root)) == []
