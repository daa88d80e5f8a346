"""The artifact store on a disk: a result exists when its manifest does, and only as long as its bytes are whole."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from tasks.core.digests import folder_digest, path_digest
from tasks.core.errors import DamagedArtifact, UserError
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.store import Store, fetch

KEY = "0123abcd"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def _out(folder: Path, text="weights") -> Path:
    (folder / "model" / "deep").mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"a": 1}\n')
    (folder / "model" / "deep" / "weights.bin").write_text(text)
    return folder


def _publish(store, out):
    model = {"uri": f"{out}/model", "digest": folder_digest(out / "model"), "facts": {}, "base": None}
    return store.publish(
        "train", KEY, out, {"model": model, "list": [str(out)], "steps": 3, "near": f"{out}x"}
    )


def test_a_published_result_is_found_with_its_references_moved(store, tmp_path):
    out = _out(tmp_path / "out")
    published = _publish(store, out)
    shutil.rmtree(out)
    found = store.find("train", KEY)
    folder = f"{tmp_path}/store/train/{KEY}/{published.attempt}"
    assert found == published
    assert [(file.name, file.size) for file in found.files] == [
        ("model/deep/weights.bin", 7),
        ("rows.jsonl", 9),
    ]
    assert found.result["list"] == [folder]
    assert (found.result["steps"], found.result["near"]) == (3, f"{tmp_path}/outx")
    store.verify(found)
    assert (fetch(ModelRef(**found.result["model"])) / "deep" / "weights.bin").read_text() == "weights"


def test_what_was_never_published_is_not_found(store):
    assert store.find("train", KEY) is None


def test_a_folder_without_a_manifest_does_not_exist(store, tmp_path):
    published = _publish(store, _out(tmp_path / "out"))
    manifest = tmp_path / "store" / "train" / KEY / "manifest.json"
    manifest.unlink()
    assert Path(store.attempt_uri(published)).is_dir()
    assert store.find("train", KEY) is None


@pytest.mark.parametrize("content", ["", "{", '{"stage": "train"}', "[]", "\0\0\0"])
def test_a_broken_manifest_counts_as_none_and_is_published_over(store, tmp_path, content):
    _publish(store, _out(tmp_path / "out"))
    (tmp_path / "store" / "train" / KEY / "manifest.json").write_text(content)
    assert store.find("train", KEY) is None
    again = _publish(store, _out(tmp_path / "again"))
    assert store.find("train", KEY) == again


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _change_one_byte(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(_truncate, "6 bytes instead of 7"), (_change_one_byte, "bytes changed"), (Path.unlink, "missing")],
)
def test_a_damaged_file_is_named(store, tmp_path, damage, reason):
    published = _publish(store, _out(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out")  # its files are links to those of the store
    damage(Path(store.attempt_uri(published)) / "model" / "deep" / "weights.bin")
    with pytest.raises(DamagedArtifact, match=reason) as caught:
        store.verify(published)
    assert caught.value.file == "model/deep/weights.bin"
    with pytest.raises(DamagedArtifact):
        fetch(ModelRef(**published.result["model"]))


def test_a_condemned_result_leaves_its_files_for_inspection(store, tmp_path):
    published = _publish(store, _out(tmp_path / "out"))
    store.condemn("train", KEY)
    store.condemn("train", KEY)
    assert store.find("train", KEY) is None
    assert (Path(store.attempt_uri(published)) / "rows.jsonl").exists()


def test_of_publishers_one_after_the_other_the_first_result_stays(store, tmp_path):
    first = _publish(store, _out(tmp_path / "out"))
    second = _publish(store, _out(tmp_path / "other", "other weights"))
    assert second == first
    assert [path.name for path in (tmp_path / "store" / "train" / KEY).iterdir() if path.is_dir()] == [
        first.attempt
    ]


def test_publishers_at_once_never_mix_their_files(store, tmp_path):
    outs = [_out(tmp_path / f"out-{number}", f"weights {number}") for number in range(8)]
    threads = [threading.Thread(target=_publish, args=(store, out)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.find("train", KEY)
    store.verify(found)
    assert fetch(ModelRef(**found.result["model"])).is_dir()


def test_a_store_works_wherever_it_is_moved_to(store, tmp_path):
    _publish(store, _out(tmp_path / "out"))
    shutil.move(tmp_path / "store", tmp_path / "elsewhere")
    moved = Store(str(tmp_path / "elsewhere"))
    found = moved.find("train", KEY)
    assert fetch(ModelRef(**found.result["model"])).is_relative_to(tmp_path / "elsewhere")
    assert str(tmp_path / "store") not in (tmp_path / "elsewhere/train" / KEY / "manifest.json").read_text()


def test_the_manifest_is_written_after_the_files(store, tmp_path, monkeypatch):
    """A copy that dies half-way leaves no result, and the next one is whole."""
    out = _out(tmp_path / "out")

    def out_of_space(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", out_of_space)
        with pytest.raises(UserError, match="is full") as caught:
            _publish(store, out)
    assert "free some space" in caught.value.mend
    assert store.find("train", KEY) is None
    assert _publish(store, out) == store.find("train", KEY)


def test_an_empty_result_can_be_published(store, tmp_path):
    (tmp_path / "out").mkdir()
    published = store.publish("train", KEY, tmp_path / "out", {})
    assert (store.find("train", KEY), published.files) == (published, [])


def test_a_store_that_can_be_written_to_passes_and_keeps_nothing_of_the_check(store, tmp_path):
    store.check()
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("below", ["", "/deeper", "/deeper/still"])
def test_a_store_at_or_below_a_regular_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to") as caught:
        Store(f"{tmp_path}/file{below}").check()
    assert caught.value.field == "store"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="no permission"):
        Store(str(tmp_path / "locked")).check()


def test_a_file_system_that_takes_nothing_is_refused():
    with pytest.raises(UserError) as caught:
        Store("/proc/loopwright").check()
    assert caught.value.field == "store"


def test_an_address_of_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="gopher") as caught:
        Store("gopher://host/store")
    assert "s3://" in caught.value.mend


@pytest.mark.parametrize("root", ["s3://", "s3:", "http://host/store", "ftp://host/store", "data://x"])
def test_an_address_that_is_no_place_for_a_store_is_refused(root):
    with pytest.raises(UserError, match="cannot be written to as a store") as caught:
        Store(root)
    assert caught.value.field == "store"


def test_a_store_at_home_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/store").root == str(tmp_path / "store")


def test_a_reference_to_nothing_is_damage(tmp_path):
    with pytest.raises(DamagedArtifact, match="not there"):
        fetch(DatasetRef(uri=str(tmp_path / "gone.jsonl"), digest="0", rows=0))


def test_a_reference_with_another_digest_is_damage_and_the_local_file_is_left_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(DamagedArtifact, match="not those that were written"):
        fetch(DatasetRef(uri=str(path), digest="0" * 64, rows=1))
    assert fetch(DatasetRef(uri=str(path), digest=path_digest(path), rows=1)) == path
