"""An object store that fails: what passes is tried again and ends whole, what lasts ends with one message."""

import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from tasks.core import transfers
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.references import ModelRef
from tasks.core.store import Store, fetch
from tasks.core.transfers import download, remote_files, upload
from tasks.data.reading import read_rows
from tests.faulty_s3 import Fault, FaultyS3, other_clock, wrong_key
from tests.s3_server import s3_server

MB = 1 << 20


@pytest.fixture(scope="module")
def upstream():
    """The address of a good server with the bucket `bucket`."""
    with s3_server("bucket") as client:
        yield client.meta.endpoint_url


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    monkeypatch.setattr(transfers, "PART", 5 * MB)
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of three parts and two small ones."""
    folder = tmp_path_factory.mktemp("faults") / "model"
    folder.mkdir()
    (folder / "large.bin").write_bytes(random.Random(0).randbytes(11 * MB))
    (folder / "config.json").write_text("{}")
    (folder / "vocabulary.txt").write_text("a b c")
    return folder


def moved(seen):
    """Whether a request carries bytes of a file; listings go by s3fs."""
    return "list-type" not in seen.target


PASSING = {
    "503 to every first request": lambda seen: (
        Fault(status=503, code="SlowDown") if moved(seen) and not seen.again else None
    ),
    "500 twice": lambda seen: (
        Fault(status=500, code="InternalError") if moved(seen) and seen.again < 2 else None
    ),
    "a part's connection cut on its way up": lambda seen: (
        Fault(cut_request=2 * MB) if "partNumber=2" in seen.target and not seen.again else None
    ),
    "a part's connection cut on its way down": lambda seen: (
        Fault(cut_response=2 * MB) if "range" in seen.headers and not seen.again else None
    ),
    "a small file's connection cut": lambda seen: (
        Fault(cut_response=3)
        if seen.method == "GET" and "vocabulary" in seen.target and not seen.again
        else None
    ),
    "slow": lambda seen: Fault(delay_s=0.3) if moved(seen) else None,
    "silent once, beyond the time allowed": lambda seen: (
        Fault(delay_s=4.0) if "partNumber=1" in seen.target and not seen.again else None
    ),
}
QUICK = {"503 to every first request", "a small file's connection cut"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PASSING]
)
def test_a_passing_fault_is_got_over(name, upstream, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "READ_TIMEOUT_S", 2.0)
    address = f"s3://bucket/{tmp_path.name}"
    with FaultyS3(upstream, PASSING[name]) as proxy:
        files = fsspec.filesystem("s3")
        sent = upload(files, folder, address)
        assert download(files, remote_files(files, address), tmp_path / "back") == sent
        assert any(proxy.fault(seen) for seen in proxy.seen)
    assert folder_digest(tmp_path / "back") == folder_digest(folder)


LASTING = {
    "503 without end": (
        lambda seen: Fault(status=503, code="SlowDown") if moved(seen) else None,
        "does not answer",
        "AWS_ENDPOINT_URL",
    ),
    "cut without end": (
        lambda seen: Fault(cut_request=0) if moved(seen) else None,
        "does not answer",
        "AWS_ENDPOINT_URL",
    ),
    "wrong credentials": (wrong_key("another"), "no permission", "AWS_ACCESS_KEY_ID"),
    "a clock an hour off": (other_clock(timedelta(hours=1)), "clock", "set the clock"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("cut")) for name in LASTING]
)
def test_a_lasting_fault_ends_with_one_message(name, upstream, folder, tmp_path, monkeypatch):
    fault, said, mend = LASTING[name]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with FaultyS3(upstream, fault):
        with pytest.raises(UserError, match=said) as caught:
            Store(f"s3://bucket/{tmp_path.name}").publish("train", "key", folder, {})
        assert (caught.value.field, mend in caught.value.mend) == ("store", True)
    assert Store(f"s3://bucket/{tmp_path.name}").find("train", "key") is None


@pytest.mark.parametrize(
    ("fault", "said"), [(wrong_key("another"), "no permission"), (other_clock(timedelta(hours=-1)), "clock")]
)
def test_fetching_and_reading_rows_are_refused_with_the_same_words(fault, said, upstream):
    with FaultyS3(upstream, fault):
        with pytest.raises(UserError, match=said):
            fetch(ModelRef(uri="s3://bucket/model", digest="0" * 64))
        with pytest.raises(UserError, match=said) as caught:
            read_rows("s3://bucket/rows.jsonl", "data.train", split="train")
    assert caught.value.field == "data.train"


@pytest.mark.slow
def test_a_clock_ten_minutes_off_is_no_fault(upstream, folder, tmp_path):
    with FaultyS3(upstream, other_clock(timedelta(minutes=10))):
        Store(f"s3://bucket/{tmp_path.name}").publish("train", "key", folder, {})
        assert Store(f"s3://bucket/{tmp_path.name}").find("train", "key") is not None


def test_a_missing_bucket_is_named(upstream, folder):
    store = Store("s3://bukket/store")
    for act in (lambda: store.publish("train", "key", folder, {}), lambda: store.find("train", "key")):
        with pytest.raises(UserError, match="bucket does not exist") as caught:
            act()
        assert (caught.value.field, "spelling" in caught.value.mend) == ("store", True)


def test_a_server_that_cuts_a_file_short_is_not_believed(upstream, folder, tmp_path):
    """A whole answer, but not of the whole file: nothing in HTTP says that something is missing."""
    store = Store(f"s3://bucket/{tmp_path.name}")
    manifest = store.publish("train", "key", folder, {"uri": str(folder)})
    files = fsspec.filesystem("s3")
    address = f"{store.attempt_uri(manifest)}/config.json"
    files.pipe_file(address, b"{ }")
    ref = ModelRef(uri=store.attempt_uri(manifest), digest=folder_digest(folder))
    with pytest.raises(Exception, match="not those that were written"):
        fetch(ref)
    assert not list((tmp_path / "home" / "cache" / "artifacts").iterdir())


FULL = """
import sys
from tasks.core.references import ModelRef
from tasks.core.store import fetch
try:
    fetch(ModelRef(uri=sys.argv[1], digest=sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_in_the_cache_ends_with_one_message(upstream, folder, tmp_path):
    """On a disk of 8 MB, which a mount namespace of its own allows without being root."""
    address = f"s3://bucket/{tmp_path.name}"
    upload(fsspec.filesystem("s3"), folder, address)
    cache = tmp_path / "home" / "cache"
    cache.mkdir(parents=True)
    within = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    mount = f"mount -t tmpfs -o size=8m none {cache}"
    try:
        subprocess.run([*within, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces for this user here")
    done = subprocess.run(
        [*within, f'{mount}; exec "$@"', "sh", sys.executable, "-c", FULL, address, folder_digest(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("UserError store: the disk beneath")
    assert str(cache) in done.stdout.splitlines()[0]
    assert "LOOPWRIGHT_HOME" in done.stdout
