"""The artifact store in an S3 bucket (moto's server): the same promises, and refusals that name the mend."""

import socket
from pathlib import Path

import pytest

from tasks.core.digests import folder_digest
from tasks.core.errors import DamagedArtifact, UserError
from tasks.core.references import ModelRef
from tasks.core.store import Store, fetch
from tests.s3_server import s3_server


@pytest.fixture(scope="module")
def client():
    """A client of a real server in this process; it holds a bucket `artifacts`."""
    with s3_server("artifacts") as client:
        yield client


@pytest.fixture
def store(client, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
    return Store(f"s3://artifacts/{tmp_path.name}")


@pytest.fixture
def published(store, tmp_path):
    out = tmp_path / "out"
    (out / "model" / "deep").mkdir(parents=True)
    (out / "model" / "weights.bin").write_bytes(bytes(range(256)))
    (out / "model" / "deep" / "config.json").write_text("{}")
    model = ModelRef(uri=f"{out}/model", digest=folder_digest(out / "model"))
    return store.publish("train", "key", out, {"model": model.model_dump(mode="json")})


def _overwrite(client, store, manifest, content: bytes):
    key = f"{store.attempt_uri(manifest)}/model/weights.bin".removeprefix("s3://artifacts/")
    client.put_object(Bucket="artifacts", Key=key, Body=content)


def test_a_published_result_is_found_and_fetched(store, published):
    found = store.find("train", "key")
    assert found == published
    store.verify(found)
    ref = ModelRef(**found.result["model"])
    assert ref.uri == f"{store.attempt_uri(published)}/model"
    assert (fetch(ref) / "weights.bin").read_bytes() == bytes(range(256))
    assert folder_digest(fetch(ref)) == ref.digest
    assert store.find("train", "other") is None


def test_the_manifest_does_not_name_the_bucket(client, store, published):
    name = f"{store.root}/train/key/manifest.json".removeprefix("s3://artifacts/")
    assert b"s3://" not in client.get_object(Bucket="artifacts", Key=name)["Body"].read()


def test_the_first_of_two_results_stays(store, published, tmp_path):
    (tmp_path / "out" / "model" / "weights.bin").write_bytes(b"other")
    assert store.publish("train", "key", tmp_path / "out", {"model": None}) == published


def test_a_changed_size_is_found_without_fetching_also_after_a_good_check(client, store, published):
    store.verify(published)
    _overwrite(client, store, published, b"short")
    with pytest.raises(DamagedArtifact, match="5 bytes instead of 256") as caught:
        store.verify(published)
    assert caught.value.file == "model/weights.bin"


def test_changed_bytes_are_found_when_they_are_fetched_and_never_kept(client, store, published):
    ref = ModelRef(**published.result["model"])
    _overwrite(client, store, published, bytes(256))
    for _ in range(2):  # the second time a spoiled download must not come from the cache
        with pytest.raises(DamagedArtifact, match="not those that were written"):
            fetch(ref)
    _overwrite(client, store, published, bytes(range(256)))
    assert fetch(ref).is_dir()


def test_a_spoiled_local_copy_is_removed_and_fetched_again(store, published):
    ref = ModelRef(**published.result["model"])
    (fetch(ref) / "weights.bin").write_bytes(b"spoiled")
    with pytest.raises(DamagedArtifact):
        fetch(ref)
    assert (fetch(ref) / "weights.bin").read_bytes() == bytes(range(256))


def test_a_missing_object_is_damage(client, store, published):
    for file in published.files:
        key = f"{store.attempt_uri(published)}/{file.name}".removeprefix("s3://artifacts/")
        client.delete_object(Bucket="artifacts", Key=key)
    with pytest.raises(DamagedArtifact, match="missing"):
        store.verify(published)
    with pytest.raises(DamagedArtifact, match="not there"):
        fetch(ModelRef(**published.result["model"]))


def test_the_working_folder_of_a_remote_store_is_local(store):
    assert Path(store.work_folder("train", "key")).is_absolute()
    assert store.work_folder("train", "key") != Store("s3://artifacts/other").work_folder("train", "key")


def test_a_misspelled_bucket_is_refused_and_not_made(client):
    before = client.list_buckets()["Buckets"]  # other tests of the same server have theirs
    with pytest.raises(UserError, match="bucket does not exist") as caught:
        Store("s3://artefacts/store").check()
    assert caught.value.field == "store"
    assert client.list_buckets()["Buckets"] == before


def test_a_bucket_that_takes_rows_passes_and_keeps_nothing_of_the_check(client):
    Store("s3://artifacts/checked").check()
    assert client.list_objects_v2(Bucket="artifacts", Prefix="checked")["KeyCount"] == 0


def test_a_server_that_does_not_answer_is_refused(client, monkeypatch):
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="does not answer") as caught:
        Store("s3://artifacts/store").check()
    s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_ENDPOINT_URL" in caught.value.mend


def test_missing_credentials_are_refused(client, monkeypatch, tmp_path):
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="no permission") as caught:
        Store("s3://artifacts/store").check()
    s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_ACCESS_KEY_ID" in caught.value.mend
