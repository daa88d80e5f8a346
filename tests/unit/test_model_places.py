"""Equal models are equal files, wherever they and their base lie; and where their weights are, once they are read."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.core.digests import folder_digest
from tasks.core.examples import make_example, write_rows
from tasks.core.models import load_model, tidy_model
from tasks.core.references import ModelRef
from tasks.problems.base import ProblemConfig
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingInputs
from tests.unit.reward_pairs import train_reward

ROWS = [make_example("play a song", "music"), make_example("will it rain?", "weather")]


@pytest.fixture
def two_places(tiny_ref, tmp_path):
    """One model in two folders of different names."""
    refs = []
    for name in ("here/base", "elsewhere/the/same"):
        shutil.copytree(tiny_ref.uri, tmp_path / name)
        refs.append(tiny_ref.model_copy(update={"uri": str(tmp_path / name)}))
    return refs


def train(model: ModelRef, folder: Path, **changes):
    inputs = TrainingInputs(
        model=model,
        train=write_rows(folder / "train.jsonl", ROWS),
        problem=ProblemConfig(name="classification", labels=("music", "weather")),
    )
    config = TrainingConfig(max_steps=2, batch_size=2, learning_rate=0.01, **changes)
    return sft.run(config, inputs, folder / "out", lambda event: None).model


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_training_from_a_base_at_two_places_gives_the_same_files(two_places, tmp_path, method):
    first, second = [train(base, tmp_path / str(n), method=method) for n, base in enumerate(two_places)]
    assert first.digest == second.digest
    assert first.uri != second.uri


def test_an_adapter_trained_further_does_not_know_where_its_base_lay_either(two_places, tmp_path):
    adapters = [train(base, tmp_path / str(n)) for n, base in enumerate(two_places)]
    further = [train(adapter, tmp_path / f"further-{n}") for n, adapter in enumerate(adapters)]
    assert further[0].digest == further[1].digest
    assert further[0].digest != adapters[0].digest


def test_a_reward_adapter_does_not_know_where_its_base_lies(two_places, tmp_path):
    results = [train_reward(tmp_path / str(n), base) for n, base in enumerate(two_places)]
    assert results[0].model.digest == results[1].model.digest


def test_an_adapter_names_its_base_by_content_and_loads_where_the_reference_says(two_places, tmp_path):
    here, elsewhere = two_places
    adapter = train(here, tmp_path / "job")
    written = json.loads((Path(adapter.uri) / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == f"sha256:{here.digest}"
    expected = load_model(adapter).state_dict()
    shutil.rmtree(here.uri)
    moved = load_model(adapter.model_copy(update={"base": elsewhere}))
    assert all((value == expected[name]).all() for name, value in moved.state_dict().items())
    trainable = load_model(adapter.model_copy(update={"base": elsewhere}), train_adapter=True)
    assert trainable.active_peft_config.base_model_name_or_path == elsewhere.uri


def test_peft_reads_the_adapter_onto_a_base_that_its_user_names(two_places, tmp_path):
    """Outside of this project: the base is given, as the adapter's own file cannot say where it is."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = train(two_places[0], tmp_path / "job")
    base = AutoModelForCausalLM.from_pretrained(two_places[1].uri)
    model = PeftModel.from_pretrained(base, adapter.uri).merge_and_unload()
    expected = load_model(adapter).state_dict()
    assert all((value == expected[name]).all() for name, value in model.state_dict().items())


def test_tidying_removes_what_a_trainer_leaves_and_any_folder_of_a_base(tmp_path):
    for name in ("training_args.bin", "README.md", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    config = {"target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": "/home/someone/base", "r": 4}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tidy_model(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "weights.safetensors"]
    tidied = json.loads((tmp_path / "adapter_config.json").read_text())
    assert tidied == {"target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": None, "r": 4}
    before = folder_digest(tmp_path)
    tidy_model(tmp_path)
    assert folder_digest(tmp_path) == before


@pytest.mark.parametrize(
    ("fsdp", "processes", "moved"), [("", "8", 1), ("true", "8", 0), ("true", "1", 1), ("true", "", 1)]
)
def test_a_model_that_fsdp_cuts_up_is_not_put_on_every_gpu_first(
    tiny_ref, monkeypatch, fsdp, processes, moved
):
    """What is no training runs in one process of the same launcher, and wants its model on the GPU."""
    import torch

    places = []
    for name, value in (("ACCELERATE_USE_FSDP", fsdp), ("WORLD_SIZE", processes)):
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, place: places.append(place) or self)
    load_model(tiny_ref, precision="float32")
    assert places == ["cuda"] * moved
