"""A model that this machine cannot hold is refused before anything is loaded, with what would help."""

import re
from pathlib import Path

import psutil
import pytest
from transformers import LlamaConfig

from flows import compress, instruct, label
from flows.llm2llm import LLM2LLMConfig
from flows.perl import PERLConfig
from flows.rest import ReSTConfig
from tasks.core.errors import UserError
from tasks.plan.fits import check_asked, check_main_memory, check_model
from tasks.plan.known_models import from_config
from tasks.plan.memory import GPU
from tasks.plan.remedies import changed
from tasks.plan.sharing import launched
from tasks.plan.stages import plan_stages
from tests.fsdp_on_cpus import write_fsdp_config

HUGE = LlamaConfig(
    vocab_size=1000,
    hidden_size=16384,
    intermediate_size=65536,
    num_hidden_layers=1000,
    num_attention_heads=128,
)


def model_of(folder: Path, config: LlamaConfig) -> LLM2LLMConfig:
    """A configuration whose student is a folder that looks like a model of that shape."""
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    return changed(LLM2LLMConfig(), {"student.model": str(folder)})


def filling(folder: Path, share: float, *, bytes_each: int) -> LLM2LLMConfig:
    """The training of all weights of a model of which `bytes_each` for every weight are a share of the memory."""
    width = 1024
    layers = int(psutil.virtual_memory().total * share / bytes_each / (12 * width**2))
    shape = LlamaConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=8,
    )
    return changed(model_of(folder, shape), {"training.method": "full"})


@pytest.fixture
def huge(tmp_path: Path) -> LLM2LLMConfig:
    return model_of(tmp_path, HUGE)


def test_weights_that_are_more_than_the_memory_are_refused_with_both_sizes(huge):
    weights = 4 * from_config(HUGE, field="student.model").parameters() / 1e9
    assert weights > psutil.virtual_memory().total / 1e9
    with pytest.raises(UserError, match="in memory for good") as error:
        check_model(huge)
    kept, there = map(float, re.findall(r"([\d.]+) GB", error.value.fault))
    assert weights < kept < 1.01 * weights  # with an adapter
    assert there == pytest.approx(psutil.virtual_memory().total / 1e9, abs=0.05)
    assert error.value.field == "student.model"
    assert "check_memory=false" in error.value.mend


def test_the_check_can_be_switched_off(huge):
    check_model(changed(huge, {"launch.check_memory": False}))


def test_processes_of_one_machine_share_its_memory(tmp_path):
    # All weights and their optimizer: 16 bytes each, half of what there is; two processes are too many.
    config = filling(tmp_path, 1 / 2, bytes_each=16)
    check_model(config)
    with pytest.raises(UserError, match="fine-tune keeps"):
        check_model(changed(config, {"launch.processes": 3}))


def test_gradients_count_where_activations_are_the_peak(tmp_path):
    # 12 bytes each are nine tenths of what there is, and would last through the backward pass of many long rows; with
    # the gradients, which are whole when the optimizer steps, there are 16.
    config = filling(tmp_path, 9 / 10, bytes_each=12)
    for rows in (1, 512):
        settings = {"training.batch_size": rows, "training.gradient_accumulation": 1}
        with pytest.raises(UserError, match="fine-tune keeps") as error:
            check_model(changed(config, settings))
        kept, there = map(float, re.findall(r"([\d.]+) GB", error.value.fault))
        assert kept == pytest.approx(there * 0.9 * 16 / 12, rel=0.02)


@pytest.mark.parametrize("share", [0.45, 0.55])
def test_what_is_offloaded_from_gpus_counts_in_main_memory(tmp_path, share):
    # 18 bytes of each weight, by two processes of one machine: twice the halves.
    config = changed(filling(tmp_path, 2 * share, bytes_each=18), {"training.deepspeed": "zero3-offload"})
    config = changed(config, {"launch.processes": 2, "training.max_length": 8})
    stages = plan_stages(config, launched(GPU, config.launch), prompt=8)
    if share < 0.5:
        check_main_memory(stages, 2, "a model")
        return
    check_main_memory(stages, 1, "a model")  # and one on each of two machines
    with pytest.raises(UserError, match="fine-tune puts") as error:
        check_main_memory(stages, 2, "a model")
    put, there = map(float, re.findall(r"([\d.]+) GB", error.value.fault))
    assert put == pytest.approx(there * 2 * share, rel=0.02)
    assert error.value.field == "training.deepspeed"


def test_without_a_gpu_nothing_is_offloaded_out_of_the_memory_that_is_checked(tmp_path):
    # 24 bytes of each weight: itself, its gradient, and what is offloaded, four numbers of the optimizer.
    config = changed(filling(tmp_path, 1.1, bytes_each=24), {"training.deepspeed": "zero3-offload"})
    with pytest.raises(UserError, match="fine-tune keeps"):
        check_model(config)


def test_fsdp_is_counted_as_the_parts_that_it_keeps(tmp_path):
    # Weights and moments are three fifths of what there is: too much for two copies, not for two halves.
    config = changed(filling(tmp_path, 3 / 5, bytes_each=12), {"launch.processes": 2})
    with pytest.raises(UserError, match="fine-tune keeps"):
        check_model(config)
    file = write_fsdp_config(tmp_path / "fsdp.yaml")
    check_model(changed(config, {"launch.launcher": "accelerate", "launch.config_file": file}))


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        (changed(LLM2LLMConfig(), {"training.deepspeed": "zero2"}), "launch.config_file", "both share"),
        (
            changed(ReSTConfig(), {"reward.by": "model", "reward_model.deepspeed": "zero3"}),
            "launch.config_file",
            "reward_model.deepspeed is zero3",
        ),
        (changed(LLM2LLMConfig(), {"training.method": "qlora"}), "launch.config_file", "4-bit"),
        (
            changed(LLM2LLMConfig(), {"training.batching": "shared_prefix"}),
            "training.batching",
            "whole model",
        ),
        (PERLConfig(), "launch.config_file", "a policy's training is not shared"),
    ],
)
def test_what_fsdp_cannot_share_is_refused_before_anything_is_trained(
    config, field, words, tiny_ref, tmp_path
):
    model = "policy.model" if hasattr(config, "policy") else "student.model"
    file = write_fsdp_config(tmp_path / "fsdp.yaml")
    config = changed(config, {model: tiny_ref.uri, "launch.processes": 2})
    check_model(config)
    fsdp = changed(config, {"launch.launcher": "accelerate", "launch.config_file": file})
    with pytest.raises(UserError, match=words) as error:
        check_model(fsdp)
    assert error.value.field == field
    assert error.value.mend
    if field == "launch.config_file" and "policy's" in words:
        check_model(changed(fsdp, {"launch.processes": 1}))


def test_a_file_of_accelerate_that_is_no_yaml_is_named(tiny_ref, tmp_path):
    (tmp_path / "broken.yaml").write_text("distributed_type: [FSDP")
    launch = {"launch.launcher": "accelerate", "launch.config_file": str(tmp_path / "broken.yaml")}
    with pytest.raises(UserError, match=r"broken\.yaml is no YAML") as error:
        check_model(changed(LLM2LLMConfig(), {"student.model": tiny_ref.uri} | launch))
    assert error.value.field == "launch.config_file"


def test_a_small_model_passes_and_so_does_one_that_cannot_be_counted(tiny_ref, tmp_path):
    check_model(changed(LLM2LLMConfig(), {"student.model": tiny_ref.uri}))
    other = tmp_path / "gpt2"
    from transformers import GPT2Config

    check_model(model_of(other, GPT2Config(n_embd=8, n_layer=1, n_head=1)))


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        check_model(changed(LLM2LLMConfig(), {"student.model": str(tmp_path / "nowhere")}))


ASKED = {
    label: {"data.rows": "rows.jsonl", "data.labels": ("yes", "no"), "data.input": "text"},
    instruct: {"data.seeds": "rows.jsonl", "map.on": False},
    compress: {"texts.train": "rows.jsonl", "data.train": "rows.jsonl", "data.test": "rows.jsonl"},
}
"""Flows that ask a local model, with the data that they need."""


@pytest.mark.parametrize(
    ("flow", "field", "changes"),
    [
        (label, "teacher.model", {}),
        (instruct, "teacher.model", {}),
        (compress, "teacher.model", {}),
        (compress, "answers.model", {}),
        (instruct, "student.model.model", {"student.on": True, "data.test": "rows.jsonl"}),
        (compress, "answers.model", {"answers.fine_tune": True, "answers.training.method": "full"}),
    ],
)
def test_flows_that_ask_a_local_model_or_train_one_beside_refuse_one_that_is_too_large(
    flow, field, changes, huge, tiny_ref, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = (f'{{"text": "Is it {n}? It is.", "label": "{("yes", "no")[n % 2]}"}}\n' for n in range(20))
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    columns = {"data.input": "text", "data.target": "label"} if flow is not label else {}
    columns |= {"data.test_target": "label"} if flow is instruct else {}
    models = {"teacher.model": tiny_ref.uri} | ({"answers.model": tiny_ref.uri} if flow is compress else {})
    models |= {"student.model.model": tiny_ref.uri} if flow is instruct else {}
    given = {"store": "store"} | ASKED[flow] | columns | models | changes
    config = changed(flow.CONFIG(), given)
    flow.check(config)
    if changes.get("answers.fine_tune"):  # its weights have room, but not what training keeps beside them
        huge = filling(tmp_path / "filling", 3 / 5, bytes_each=4)
    large = changed(config, {field: huge.student.model})
    with pytest.raises(UserError, match="GB of") as error:
        flow.check(large)
    assert error.value.field == field
    flow.check(changed(large, {"launch.check_memory": False}))
    if flow is label:  # where the cluster's machines have the room, nobody here knows
        check_asked(
            changed(large, {"fan_out.runner": "ray", "fan_out.ray_address": "head:6379"}),
            *_asked(large),
            field=field,
        )


def _asked(config):
    return config.teacher.weights(), config.teacher.engine
