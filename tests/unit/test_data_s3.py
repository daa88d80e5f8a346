"""Rows in an S3 bucket: read as from a disk, refusals named."""

import os
import random
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


def _parquet(rows):
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    # Noise that no compression makes smaller, in a column that nobody asks for.
    table = pyarrow.table(
        {
            "input": [f"question {number}" for number in range(rows)],
            "scan": [random.Random(number).randbytes(100_000) for number in range(rows)],
            "target": ["a", "b"] * (rows // 2),
            "choices": [["a", "b"]] * rows,
        }
    )
    pyarrow.parquet.write_table(table, sink, row_group_size=rows // 3)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def large(bucket):
    """A Parquet file whose columns in use are a hundredth of it; its address, its rows and its bytes."""
    import s3fs

    content = _parquet(60)
    s3fs.S3FileSystem().pipe_file("rows/large/rows.parquet", content)
    return f"{bucket}/large/rows.parquet", content


def test_of_a_large_parquet_file_only_the_columns_in_use_are_read(large, monkeypatch):
    from tests.faulty_s3 import FaultyS3

    address, content = large
    with FaultyS3(os.environ["AWS_ENDPOINT_URL"], lambda seen: None) as proxy:
        config = DataConfig(train=address, choices="choices")
        rows = [(place, row.input, row.target, row.choices) for place, row in read_located(config, "train")]
    assert rows == [(f"{address}, row {n + 1}", f"question {n}", "ab"[n % 2], ["a", "b"]) for n in range(60)]
    ranges = [
        seen.headers["range"] for seen in proxy.seen if seen.method == "GET" and "range" in seen.headers
    ]
    bounds = [one.removeprefix("bytes=").split("-") for one in ranges]
    assert 0 < sum(int(end) - int(begin) + 1 for begin, end in bounds) < len(content) / 20
    assert not [
        seen
        for seen in proxy.seen
        if seen.method == "GET" and seen.target.endswith("rows.parquet") and "range" not in seen.headers
    ]


def test_a_missing_column_of_a_large_file_is_named_beside_those_it_has(large):
    with pytest.raises(UserError, match="no column 'question'") as caught:
        read_located(DataConfig(train=large[0], input="question"), "train")
    assert (caught.value.field, "input, scan, target, choices" in caught.value.mend) == ("data.input", True)


def test_a_large_file_that_is_not_whole_is_refused(large):
    import s3fs

    s3fs.S3FileSystem().pipe_file("rows/torn.parquet", large[1][:-100])
    with pytest.raises(UserError, match="not whole Parquet") as caught:
        read_located(DataConfig(train="s3://rows/torn.parquet"), "train")
    assert caught.value.field == "data.train"
