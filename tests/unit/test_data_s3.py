"""Rows in an S3 bucket: read as from a disk, refusals named."""

import socket

import pytest

from tasks.core.errors import UserError
from tasks.data.config import DataConfig
from tasks.data.reading import read_located
from tests.s3_server import s3_server


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket on a real server in this process, which forgets everything at the end."""
    with s3_server("rows") as client:
        client.put_object(Bucket="rows", Key="a/train.jsonl", Body=b'{"input": "Hi", "target": "a"}')
        client.put_object(Bucket="rows", Key="a/more.csv", Body=b"input,target\nHo,b\n")
        yield "s3://rows"


def _read(address):
    return [example.input for _, example in read_located(DataConfig(train=address), "train")]


def test_a_file_and_a_folder_are_read(bucket):
    assert _read(f"{bucket}/a/train.jsonl") == ["Hi"]
    assert _read(f"{bucket}/a") == ["Ho", "Hi"]


@pytest.mark.parametrize(
    ("address", "mend"), [("s3://rows/a/trian.jsonl", "train.jsonl"), ("s3://nowhere/a.jsonl", "bucket")]
)
def test_what_does_not_exist_is_refused(bucket, address, mend):
    with pytest.raises(UserError, match="does not exist") as caught:
        _read(address)
    assert (caught.value.field, mend in caught.value.mend) == ("data.train", True)


def test_a_server_that_is_not_there_is_refused(bucket, monkeypatch):
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(UserError, match="cannot be read") as caught:
        _read(f"{bucket}/a/train.jsonl")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_ENDPOINT_URL" in caught.value.mend


def test_missing_credentials_are_refused(bucket, monkeypatch, tmp_path):
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="no permission") as caught:
        _read(f"{bucket}/a/train.jsonl")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_ACCESS_KEY_ID" in caught.value.mend
