"""Finding a model: what can be had becomes a reference, what cannot is named with its mend before it is loaded."""

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tasks import base_model
from tasks.base_model import EMBEDDED, ModelConfig, locate
from tasks.compress.weights import compressor_folder
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.store import fetch
from tasks.plan.known_models import architecture_of
from tests.s3_server import s3_server


def found(model: Path | str, out: Path):
    config = ModelConfig(model=str(model))
    return base_model.run(config, locate(config), out, print)


def test_a_folder_is_used_where_it_lies(tiny_model, tmp_path):
    result = found(tiny_model, tmp_path)
    assert (result.model.uri, result.model.digest) == (str(tiny_model), folder_digest(tiny_model))
    weights = load_file(tiny_model / "model.safetensors")
    assert result.parameters == sum(array.size for array in weights.values())
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_becomes_an_absolute_one(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_model.parent)
    assert found(f"./{tiny_model.name}", tmp_path).model.uri == str(tiny_model)


def test_another_place_and_a_changed_file_change_the_fingerprint(tiny_model, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    before = locate(ModelConfig(model=str(copy)))
    assert locate(ModelConfig(model=str(copy))) == before
    monkeypatch.chdir(tmp_path)
    here = locate(ModelConfig(model="./copy"))
    assert here == before
    shutil.copytree(copy, tmp_path / "there" / "copy")
    monkeypatch.chdir(tmp_path / "there")  # the same files, and the same name in the configuration
    assert locate(ModelConfig(model="./copy")) != here
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert locate(ModelConfig(model=str(copy))) != before


def _without(name):
    def remove(folder):
        (folder / name).unlink()

    return remove


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("config.json"), "holds no config.json"),
        (_without("model.safetensors"), "holds no .safetensors"),
        (shutil.rmtree, "there is no"),
    ],
)
@pytest.mark.parametrize("field", ["student.model", "teacher.model"])
def test_a_folder_that_is_no_model_is_refused(tiny_model, tmp_path, spoil, message, field):
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(UserError, match=message) as caught:
        locate(ModelConfig(model=str(copy)), field)
    assert caught.value.field == field


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="is not a model"):
        locate(ModelConfig(model=str(tmp_path / "notes.txt")))


@pytest.mark.parametrize("model", ["nothing", "./nothing/here", "/nothing/at/all", "a/b/c", "missing.gguf"])
def test_a_model_that_is_not_there_is_refused(model):
    with pytest.raises(UserError, match="there is no"):
        locate(ModelConfig(model=model))


def test_a_hub_model_without_the_hub_is_refused_with_the_mend():
    with pytest.raises(UserError, match="reachable on the hub") as caught:
        locate(ModelConfig(model="someone/some-model"), "teacher.model")
    assert (caught.value.field, "HF_HUB_OFFLINE" in caught.value.mend) == ("teacher.model", True)


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """Makes the cache of a machine that has a model of the hub, with another file, or not at all."""
    import huggingface_hub.constants as constants

    def machine(name: str, *, more: str = "", main: str = "a" * 40) -> Path:
        owned = tmp_path / name / "models--someone--some-model"
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / name))
        for commit in ("a" * 40, "b" * 40) if name != "bare" else ():
            folder = Path(shutil.copytree(tiny_model, owned / "snapshots" / commit))
            if more:
                (folder / more).write_text("more")
        (owned / "refs").mkdir(parents=True)
        (owned / "refs" / "main").write_text(main)
        return owned / "snapshots" / ("a" * 40)

    return machine


def test_a_hub_model_is_found_again_on_another_machine_by_its_commit(hub, tmp_path):
    first = hub("first")
    ref = found("someone/some-model", tmp_path).model
    assert fetch(ref) == first
    # Somebody had all files of the repository fetched there, and its main branch went on.
    second = hub("second", more="README.md", main="b" * 40)
    assert fetch(ref) == second
    assert found("someone/some-model", tmp_path).model.digest == ref.digest
    with pytest.raises(UserError, match="not those that the run began with"):
        hub("third", more="more.json") and fetch(ref)
    with pytest.raises(UserError, match="cannot be fetched from the hub") as caught:
        hub("bare") and fetch(ref)
    assert "HF_HUB_OFFLINE" in caught.value.mend


def test_code_that_comes_with_a_hub_model_counts_where_it_is_run(hub, tmp_path):
    hub("first", more="modeling.py")
    config = ModelConfig(model="someone/some-model", trust_remote_code=True)
    ref = base_model.run(config, locate(config), tmp_path, print).model
    assert ref.digest != found("someone/some-model", tmp_path).model.digest
    hub("second")
    with pytest.raises(UserError, match="not those that the run began with"):
        fetch(ref)


@pytest.fixture(scope="module")
def bucket():
    with s3_server("models") as client:
        yield client


def upload(client, folder: Path, prefix: str) -> str:
    for path in folder.iterdir():
        client.upload_file(str(path), "models", f"{prefix}/{path.name}")
    return f"s3://models/{prefix}"


def test_a_model_in_an_object_store_is_fetched_by_what_it_holds(bucket, tiny_model, tmp_path, monkeypatch):
    address = upload(bucket, tiny_model, "tiny")
    before = locate(ModelConfig(model=address))
    ref = found(address, tmp_path / "out").model
    assert (ref.uri, ref.digest) == (address, folder_digest(tiny_model))
    assert not (tmp_path / "out").exists()  # nothing of it goes into the store
    shape = architecture_of(ModelConfig(model=address), field="student.model")
    assert shape == architecture_of(ModelConfig(model=str(tiny_model)), field="student.model")
    here = fetch(ref)
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "another machine"))
    there = fetch(ref)
    assert there != here
    assert folder_digest(there) == ref.digest
    assert base_model.find_model(ModelConfig(model=address)) == (there, address, ref.digest)
    assert compressor_folder(address, "") == there
    bucket.put_object(Bucket="models", Key="tiny/more.json", Body=b"{}")
    assert locate(ModelConfig(model=address)) != before
    assert found(address, tmp_path / "out").model.digest != ref.digest


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://models/nothing", "there is nothing at"),
        ("s3://models/rows", "holds no config.json"),
        ("s3://absent/model", "bucket does not exist"),
        ("s4://models/tiny", "is not an address that can be opened"),
    ],
)
def test_an_address_without_a_model_is_refused(bucket, address, message):
    bucket.put_object(Bucket="models", Key="rows/rows.jsonl", Body=b"{}")
    with pytest.raises(UserError, match=message) as caught:
        locate(ModelConfig(model=address), "policy.model")
    assert caught.value.field == "policy.model"


def test_a_hub_that_is_not_reached_is_a_message(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="reachable on the hub"):
        locate(ModelConfig(model="someone/some-model"))


def test_the_champion_of_a_registered_model_is_one_model_with_its_adapter_merged(
    tiny_ref, tmp_path, monkeypatch
):
    import torch
    from peft import LoraConfig, get_peft_model

    from tasks.core.models import load_model, tidy_model
    from tasks.core.references import ModelRef
    from tasks.core.tracking import Tracking, TrackingConfig
    from tasks.promotion.registry import ModelRegistry

    adapted = get_peft_model(load_model(tiny_ref), LoraConfig(r=4, target_modules="all-linear"))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weights, 0.01)  # as made it would change nothing
    adapted.save_pretrained(tmp_path / "adapter")
    tidy_model(tmp_path / "adapter", tiny_ref)
    digest = folder_digest(tmp_path / "adapter")
    adapter = ModelRef(uri=str(tmp_path / "adapter"), digest=digest, base=tiny_ref)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracking = Tracking(TrackingConfig())
    registry = ModelRegistry(tracking, "messages")
    registry.create()
    facts = {"run_id": tracking.start("run"), "source": "model", "tags": {}}
    registry.settle(registry.register(adapter, work="1", promoted=True, parent="", **facts))
    result = found("models:/messages@champion", tmp_path / "out")
    assert result.model.base is None
    tokens = torch.tensor([[5, 6, 7, 8]])
    merged, whole = load_model(result.model), load_model(adapter)
    assert torch.equal(merged(tokens).logits, whole(tokens).logits)
    assert not torch.allclose(merged(tokens).logits, load_model(tiny_ref)(tokens).logits)
    with pytest.raises(UserError, match="does not exist") as caught:
        locate(ModelConfig(model="models:/messages@best"), "policy.model")
    assert caught.value.field == "policy.model"


@pytest.mark.e2e
def test_the_model_of_the_install_is_converted_and_knows_the_capital_of_france(tmp_path):
    from tasks.core.generators.base import Sampling
    from tasks.core.generators.load import EngineConfig, load_generator

    result = found(EMBEDDED, tmp_path)
    assert 134e6 < result.parameters < 164e6
    generator = load_generator(EngineConfig(), result.model, field="engine")
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    (answer,) = generator.generate([prompt], Sampling(max_new_tokens=16))
    assert "Paris" in answer.text
