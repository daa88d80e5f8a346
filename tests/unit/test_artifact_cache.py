"""The cache of remote artifacts: its limit holds, what was used least recently goes, what is in use stays."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from tasks.core import artifact_cache
from tasks.core.digests import path_digest
from tasks.core.errors import UserError
from tasks.core.references import DatasetRef
from tasks.core.store import fetch

KB = 1000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(artifact_cache, "_in_use", {})
    return tmp_path / "home"


@pytest.fixture
def remote(tmp_path):
    """Makes a remote file of so many thousand bytes (fsspec's memory), and its reference."""

    def make(name: str, size: int) -> DatasetRef:
        local = tmp_path / name
        local.write_bytes(name.encode() * (size * KB // len(name)))
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", local.read_bytes())
        return DatasetRef(uri=f"memory://{tmp_path.name}/{name}", digest=path_digest(local), rows=1)

    return make


def limit(monkeypatch, size):
    monkeypatch.setenv("LOOPWRIGHT_CACHE_GB", str(size * KB / 1e9))


def let_go():
    """As if the process that fetched them had ended."""
    for lock in artifact_cache._in_use.values():
        lock.close()
    artifact_cache._in_use.clear()


def cached(home, *refs):
    return [(home / "cache" / "artifacts" / ref.digest).exists() for ref in refs]


def fetched_at(ref, when):
    fetch(ref)
    os.utime(artifact_cache._locks() / f"{ref.digest}.used", (when, when))


def test_what_was_used_least_recently_goes(home, remote, monkeypatch):
    limit(monkeypatch, 100)
    a, b, c, d = (remote(name, 40) for name in "abcd")
    fetched_at(b, 1)
    fetched_at(a, 2)
    let_go()
    fetched_at(b, 3)  # used again: now a is the one
    let_go()
    fetched_at(c, 4)
    assert cached(home, a, b, c) == [False, True, True]
    let_go()
    fetch(d)
    assert cached(home, a, b, c, d) == [False, False, True, True]
    assert fetch(a).read_bytes().startswith(b"aaa")  # gone is not lost


def test_no_limit_keeps_everything(home, remote):
    refs = [remote(name, 40) for name in "abc"]
    for ref in refs:
        fetch(ref)
    let_go()
    fetch(remote("d", 40))
    assert cached(home, *refs) == [True, True, True]


USER = """
import sys, time
from tasks.core.references import DatasetRef
from tasks.core.store import fetch
import fsspec
fetch(DatasetRef(uri=sys.argv[1], digest=sys.argv[2], rows=1))
print("has it", flush=True)
sys.stdin.read()
"""


def test_what_another_process_uses_stays_until_that_is_killed(home, remote, monkeypatch):
    limit(monkeypatch, 100)
    a, b, c = (remote(name, 40) for name in "abc")
    fetched_at(a, 1)
    let_go()
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", USER, a.uri, a.digest]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout.readline() == "has it\n"
        os.utime(artifact_cache._locks() / f"{a.digest}.used", (1, 1))
        fetched_at(b, 2)
        let_go()
        fetch(c)
        assert cached(home, a, b, c) == [True, False, True]
        let_go()
        with pytest.raises(UserError, match="running processes use 4e-05 GB") as caught:
            fetch(remote("d", 70))
        assert (caught.value.field, "raise it" in caught.value.mend) == ("LOOPWRIGHT_CACHE_GB", True)
        user.kill()
    fetch(remote("e", 70))
    assert cached(home, a) == [False]


def test_what_this_process_uses_stays(home, remote, monkeypatch):
    limit(monkeypatch, 100)
    a, b = remote("a", 60), remote("b", 60)
    fetch(a)
    with pytest.raises(UserError, match="no room in the cache"):
        fetch(b)
    assert cached(home, a, b) == [True, False]
    let_go()
    fetch(b)
    assert cached(home, a, b) == [False, True]


def test_files_with_two_names_count_once_and_are_gone_with_the_last(home, remote, monkeypatch):
    """As a remote model has: by what was listed of it, and by what it holds."""
    limit(monkeypatch, 100)
    a, b, c = remote("a", 60), remote("b", 30), remote("c", 60)
    path = fetch(a)
    os.link(path, path.with_name("another-name"))
    fetch(b)
    assert cached(home, a, b) == [True, True]
    let_go()
    fetch(c)
    assert cached(home, a, c) == [False, True]
    assert not path.with_name("another-name").exists()


def test_one_on_its_way_counts_and_one_that_was_killed_on_its_way_does_not(home, remote, monkeypatch):
    limit(monkeypatch, 100)
    a, b = remote("a", 60), remote("b", 60)
    artifact_cache._make_folders()
    with artifact_cache._locked(artifact_cache._locks() / a.digest):
        (artifact_cache._copies() / f"{a.digest}.{60 * KB}.partial").mkdir()
        with pytest.raises(UserError, match="no room in the cache"):
            fetch(b)
    fetch(b)
    assert [path.name for path in artifact_cache._copies().iterdir()] == [b.digest]


def test_several_threads_fetch_one_artifact_once(home, remote, monkeypatch):
    from tasks.core import store

    counted, plain = [], store.download
    monkeypatch.setattr(store, "download", lambda *words: counted.append(1) or plain(*words))
    ref = remote("a", 500)
    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(lambda _: fetch(ref), range(8)))
    assert (len(paths), len(counted)) == (1, 1)


@pytest.mark.parametrize("text", ["much", "-1"])
def test_a_limit_that_is_none_is_refused(text, remote, monkeypatch):
    monkeypatch.setenv("LOOPWRIGHT_CACHE_GB", text)
    with pytest.raises(UserError) as caught:
        fetch(remote("a", 1))
    assert caught.value.field == "LOOPWRIGHT_CACHE_GB"


def test_a_full_disk_takes_what_is_not_in_use(home, remote, monkeypatch):
    """The disk refuses while anything lies there that nobody uses."""
    from tasks.core import store

    a, b = remote("a", 40), remote("b", 40)
    fetch(a)
    let_go()
    plain = store.download

    def crowded(*words):
        if cached(home, a) == [True]:
            raise OSError(28, "No space left on device")
        return plain(*words)

    monkeypatch.setattr(store, "download", crowded)
    assert fetch(b).exists()
    assert cached(home, a, b) == [False, True]
