"""The shapes that a plan counts from: parameters to the number, against transformers and PEFT on the meta device."""

import json

import pytest
import torch
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    FalconConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from tasks.base_model import EMBEDDED, ModelConfig
from tasks.core.errors import UserError
from tasks.plan.architecture import Architecture
from tasks.plan.known_models import architecture_of, from_config, known_architectures
from tasks.sft.adapter import AdapterConfig, lora_config

NAMES = sorted(name for name in known_architectures() if "/" not in name)
CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
CONFIGS |= {"smollm3": SmolLM3Config, "granite": GraniteConfig, "phi3": Phi3Config}
ATTENTION = "q_proj,k_proj,v_proj,o_proj"


def config_of(shape: Architecture):
    """transformers' configuration of a shape, written out by hand."""
    if shape.family == "falcon":
        return FalconConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_kv_heads=shape.kv_heads,
            ffn_hidden_size=shape.intermediate,
            new_decoder_architecture=True,
            bias=False,
            alibi=False,
            max_position_embeddings=shape.context,
        )
    return CONFIGS[shape.family](
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.context,
        pad_token_id=None,
    )


def on_meta(config, kind=AutoModelForCausalLM):
    with torch.device("meta"):
        return kind.from_config(config)


def count(model, name: str = "") -> int:
    return sum(part.numel() for path, part in model.named_parameters() if name in path)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_model_to_the_number(name):
    shape = known_architectures()[name]
    assert shape.parameters() == count(on_meta(config_of(shape)))
    assert from_config(config_of(shape), field="model") == shape


SMALL = {"hidden": 64, "layers": 3, "heads": 4, "kv_heads": 2, "head_size": 16, "intermediate": 96}
SMALL |= {"vocabulary": 99, "context": 128}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "family", sorted(CONFIGS.keys() - {"granite"})
)  # which has no classifier in transformers
def test_a_reward_model_is_the_body_and_a_head_of_one_number(family, tied):
    shape = Architecture(family=family, tied=tied, qkv_bias=family == "qwen2", **SMALL)
    config = config_of(shape)
    assert shape.parameters() == count(on_meta(config))
    config.num_labels = 1
    classifier = on_meta(config, AutoModelForSequenceClassification)
    assert shape.body_parameters() + shape.hidden == count(classifier)


def test_biases_count():
    config = LlamaConfig(
        vocab_size=99, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96
    )
    config.attention_bias = config.mlp_bias = True
    assert from_config(config, field="model").parameters() == count(on_meta(config))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("smollm2-135m", "all-linear"),
        ("smollm2-135m", ATTENTION),
        ("llama-3.1-8b", ATTENTION),
        ("qwen2.5-7b", "all-linear"),
        ("falcon-180b", "all-linear"),
        ("phi-4", "all-linear"),
        ("phi-4", "qkv_proj,o_proj"),
    ],
)
def test_an_adapter_is_counted_as_peft_makes_it(name, modules):
    shape, adapter = known_architectures()[name], AdapterConfig(rank=8, modules=modules)
    model = on_meta(config_of(shape))
    peft = get_peft_model(model, lora_config(adapter, model, field="modules"))
    adapted = shape.adapted(adapter, field="modules")
    assert shape.adapter_parameters(8, adapted) == count(peft, "lora_")


def test_a_shape_is_read_from_a_folder_without_weights(tmp_path):
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        tie_word_embeddings=True,
        max_position_embeddings=128,
    )
    config.save_pretrained(tmp_path)
    found = architecture_of(ModelConfig(model=str(tmp_path)), field="policy.model")
    assert found == Architecture(family="llama", tied=True, **SMALL)


def test_names_of_the_hub_and_of_the_embedded_model_are_known():
    def shape(name):
        return architecture_of(ModelConfig(model=name), field="policy.model")

    assert shape("meta-llama/Llama-3.1-8B-Instruct") == shape("llama-3.1-8b") == shape("Llama-3.1-8B")
    assert shape(EMBEDDED).parameters() == 134_515_008


def test_mistakes_name_the_field_and_the_mend(tmp_path):
    def refused(name):
        with pytest.raises(UserError) as error:
            architecture_of(ModelConfig(model=str(name)), field="student.model")
        assert error.value.field == "student.model"
        return str(error.value)

    assert "did you mean llama-3.1-8b" in refused("llama-3-8b")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused(tmp_path / "empty")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "gpt2 cannot be planned for" in refused(other)
    (other / "config.json").write_text("{")
    assert "cannot be read" in refused(other)
    with pytest.raises(UserError, match="no module named wq"):
        known_architectures()["llama-3.1-8b"].adapted(AdapterConfig(modules="q_proj,wq"), field="adapter")
