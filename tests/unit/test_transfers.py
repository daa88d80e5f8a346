"""Files to an object store and back (moto's server): whole, in parts, by few requests, with their digests."""

import random
from collections import Counter

import fsspec
import pytest

from tasks.core import transfers
from tasks.core.digests import file_digest, folder_digest, folder_files
from tasks.core.errors import UserError
from tasks.core.transfers import download, remote_files, upload
from tests.s3_server import s3_server

MB = 1 << 20


@pytest.fixture(scope="module")
def client():
    with s3_server("bucket") as client:
        yield client


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """The smallest parts that S3 takes."""
    monkeypatch.setattr(transfers, "PART", 5 * MB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of several parts, the last of one byte, small ones, an empty one; not to be written to."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("transfers") / "model"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "large.bin").write_bytes(draw.randbytes(10 * MB + 1))
    (folder / "deep" / "er" / "empty").write_bytes(b"")
    (folder / "a name with # and ü.json").write_bytes(b"{}")
    for number in range(9):
        (folder / f"{number:02}.txt").write_bytes(draw.randbytes(1000 + number))
    return folder


@pytest.fixture(params=["s3", "memory"])
def place(request, client, tmp_path):
    """A file system and an address on it: s3transfer's way, and the one of every other store."""
    address = f"{request.param}://bucket/{tmp_path.name}"
    return fsspec.core.url_to_fs(address)[0], address


def test_a_folder_goes_up_and_comes_down_with_the_same_digests(place, folder, tmp_path):
    files, address = place
    sent = upload(files, folder, address)
    assert sent == {path.relative_to(folder).as_posix(): file_digest(path) for path in folder_files(folder)}
    assert download(files, remote_files(files, address), tmp_path / "back") == sent
    assert folder_digest(tmp_path / "back") == folder_digest(folder)


def test_large_files_lie_in_parts_and_small_ones_do_not(client, folder, tmp_path):
    files, address = fsspec.filesystem("s3"), f"s3://bucket/{tmp_path.name}"
    upload(files, folder, address)

    def parts(name):
        head = client.head_object(Bucket="bucket", Key=f"{tmp_path.name}/{name}")["ETag"].strip('"')
        return int(head.partition("-")[2] or 1)

    assert [parts(name) for name in ("deep/large.bin", "00.txt", "deep/er/empty")] == [3, 1, 1]
    found = remote_files(files, f"{address}/deep/large.bin")
    assert [(one.name, one.size) for one in found] == [("", 10 * MB + 1)]
    assert download(files, found, tmp_path / "one.bin") == {"": file_digest(folder / "deep" / "large.bin")}
    assert (tmp_path / "one.bin").read_bytes() == (folder / "deep" / "large.bin").read_bytes()


def test_a_listing_ends_at_the_folder(place, tmp_path):
    files, address = place
    for name in ("model/a", "model-2/a"):
        files.pipe_file(f"{address}/{name}", b"x")
    assert [one.name for one in remote_files(files, f"{address}/model")] == ["a"]
    with pytest.raises(FileNotFoundError):
        remote_files(files, f"{address}/mod")


def test_a_small_file_costs_one_request(client, tmp_path, monkeypatch):
    files, address = fsspec.filesystem("s3", skip_instance_cache=True), f"s3://bucket/{tmp_path.name}"
    (tmp_path / "out").mkdir()
    for number in range(5):
        (tmp_path / "out" / str(number)).write_text("x")
    made, make = Counter(), transfers._new_client

    def counting(files, at_once):
        client = make(files, at_once)
        client.meta.events.register("before-call.s3", lambda model, **_: made.update([model.name]))
        return client

    monkeypatch.setattr(transfers, "_new_client", counting)
    upload(files, tmp_path / "out", address)
    download(files, remote_files(files, address), tmp_path / "back")
    assert made == {"PutObject": 5, "GetObject": 5}


def test_a_file_of_too_many_parts_gets_larger_parts(monkeypatch):
    monkeypatch.setattr(transfers, "MOST_PARTS", 10)
    files = fsspec.filesystem("s3", key="a", secret="b")
    with transfers._manager(files, 100 * MB) as manager:
        assert manager.config.multipart_chunksize == 10 * MB
    with transfers._manager(files, 20 * MB) as manager:
        assert manager.config.multipart_chunksize == 5 * MB


@pytest.mark.parametrize("text", ["0", "many", "1000"])
def test_how_many_at_once_is_checked(text, monkeypatch):
    from tasks.core.settings import transfers_at_once

    monkeypatch.setenv("LOOPWRIGHT_TRANSFERS", text)
    with pytest.raises(UserError, match="from 1 to 256") as caught:
        transfers_at_once()
    assert caught.value.field == "LOOPWRIGHT_TRANSFERS"


def test_one_request_at_a_time_is_enough(client, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPWRIGHT_TRANSFERS", "1")
    files, address = fsspec.filesystem("s3"), f"s3://bucket/{tmp_path.name}"
    sent = upload(files, folder, address)
    assert download(files, remote_files(files, address), tmp_path / "back") == sent
