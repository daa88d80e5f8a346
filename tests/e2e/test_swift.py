"""The whole loop on OpenStack Swift's S3 API: rows, store, Prefect's records and MLflow's artifacts lie there."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.references import ModelRef
from tasks.core.store import Store, fetch
from tests.flows.loops import TEST, TRAIN, Loop, without_places
from tests.flows.teacher import write_texts
from tests.scripted_server import ScriptedServer
from tests.swift_server import Swift

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(Swift.missing()), reason=Swift.missing()),
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket; endpoint and keys stand in the environment meanwhile."""
    import s3fs

    with (
        Swift(Path(tempfile.mkdtemp(prefix="loopwright-swift-"))) as swift,
        pytest.MonkeyPatch.context() as patch,
    ):
        swift.bucket("loops")
        for name, value in swift.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield "s3://loops"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path / "home"


def test_everything_lies_in_the_bucket_and_another_machine_goes_on_from_there(
    bucket, home, tmp_path, tiny_model, prefect_server
):
    for name, rows in (("train", TRAIN), ("test", TEST)):
        pandas.DataFrame(rows, columns=["text", "label"]).to_parquet(f"{bucket}/data/{name}.parquet")
    with ScriptedServer(write_texts) as teacher:
        loop = Loop(tmp_path / "loop", tiny_model, teacher.url, prefect_server)
        places = {
            "data.train": f"{bucket}/data/train.parquet",
            "data.test": f"{bucket}/data/test.parquet",
            "store": f"{bucket}/store",
            "tracking.artifacts": f"{bucket}/mlflow",
        }
        first = loop.run(**places)
        asked = len(teacher.requests)
        shutil.rmtree(home / "cache")  # as on another machine
        again = loop.command(**places)
        assert len(teacher.requests) == asked
    assert without_places(again) == without_places(first)
    model = ModelRef.model_validate(first["model"])
    assert model.uri.startswith(f"{bucket}/store/sft/")
    assert folder_digest(fetch(model)) == model.digest
    there = Store(bucket).listing()
    assert [name for name in there if name.startswith("store/records/")]
    assert [name for name in there if name.startswith("mlflow/") and name.endswith(".html")]
    assert not (home / "store").exists()
    assert not (home / "mlartifacts").exists()


def test_a_store_is_emptied_file_by_file(bucket):
    store = Store(f"{bucket}/emptied")
    for name in ("a/b", "a/c", "d"):
        store.write(name, b"x")
    store.remove("a")
    assert set(store.listing()) == {"d"}


def test_a_wrong_key_and_a_missing_bucket_are_named(bucket, monkeypatch):
    import s3fs

    with pytest.raises(UserError, match="bucket does not exist"):
        Store("s3://lopps/store").check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="no permission") as caught:
        Store(f"{bucket}/store").check()
    s3fs.S3FileSystem.clear_instance_cache()
    assert caught.value.field == "store"
