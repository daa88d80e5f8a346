"""What a layer keeps for its backward pass, to the byte: against what autograd saves of real models."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from tasks.plan.activations import Training, kept_by_layer, mask_of_layer
from tasks.plan.architecture import Architecture
from tasks.sft.adapter import AdapterConfig, lora_config
from tests.unit.test_plan_architecture import SMALL, config_of

ROWS, LENGTH, RANK = 3, 40, 4
CASES = [
    ("float32", "shared"),
    ("bfloat16", "float32"),  # PPO in 16 bits
    ("bfloat16", "autocast"),  # the trainers in 16 bits
]


def saved_bytes(model, ids, mask, *, autocast: bool) -> int:
    """Bytes of all storages that the forward pass of the layers saves, the weights left out."""
    weights = {part.untyped_storage().data_ptr() for part in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    body = getattr(model, "get_base_model", lambda: model)().base_model
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        body(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sequence_that_rows_share_keeps_the_mask_of_all_its_tokens(precision):
    tokens = torch.arange(ROWS * LENGTH)
    rows = tokens // LENGTH
    mask = ((rows[:, None] == rows[None, :]) & (tokens[:, None] >= tokens[None, :]))[None, None]
    found = []
    for layers in (2, 4):
        shape = Architecture(family="llama", tied=True, qkv_bias=False, **SMALL | {"layers": layers})
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=getattr(torch, precision))
        found.append(saved_bytes(model, tokens[None] % 99, mask, autocast=False))
    number = 4 if precision == "float32" else 2
    kept = ROWS * LENGTH * kept_by_layer(shape, Training(number))
    assert (found[1] - found[0]) / 2 == kept + mask_of_layer(number, 1, ROWS * LENGTH)


def test_values_that_no_head_shares_keep_what_they_were_joined_with():
    ids, found = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 99, []
    for layers in (2, 4):
        shape = Architecture(family="phi3", tied=True, **SMALL | {"layers": layers, "kv_heads": 4})
        model = AutoModelForCausalLM.from_config(config_of(shape))
        mask = torch.ones_like(ids)
        mask[0, :5] = 0
        found.append(saved_bytes(model, ids, mask, autocast=False))
    kept = ROWS * LENGTH * kept_by_layer(shape, Training(4))
    assert (found[1] - found[0]) / 2 == kept + mask_of_layer(4, ROWS, LENGTH)


@pytest.mark.parametrize(("precision", "copies"), CASES)
@pytest.mark.parametrize("trained", ["all weights", "all-linear", "attention"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3", "granite", "phi3", "falcon"])
def test_a_layer_keeps_what_autograd_saves(family, trained, precision, copies):
    if family == "falcon" and copies == "autocast":
        pytest.skip("autocast computes layer norms in float32 on GPUs alone, which is what is planned for")
    joined = {"falcon": "query_key_value,dense", "phi3": "qkv_proj,o_proj"}
    names = {"attention": joined.get(family, "q_proj,k_proj,v_proj,o_proj")}
    adapter = AdapterConfig(rank=RANK, modules=names.get(trained, "all-linear"))
    ids = torch.randint(0, 99, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0  # padding, as batches have it
    found, shapes = [], []
    for layers in (2, 4):
        shape = Architecture(
            family=family, tied=True, qkv_bias=family == "qwen2", **SMALL | {"layers": layers}
        )
        # Weights that are trained are float32, and autocast makes copies of them.
        held = "float32" if trained == "all weights" and copies == "autocast" else precision
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=getattr(torch, held))
        if trained != "all weights":
            model = get_peft_model(model, lora_config(adapter, model, field="modules"))
        found.append(saved_bytes(model, ids, mask, autocast=copies == "autocast"))
        shapes.append(shape)
    number = 4 if precision == "float32" else 2
    shape, training = shapes[0], Training(number)
    adapted = shape.adapted(adapter, field="modules")
    if trained != "all weights":
        training = Training(number, adapted, RANK, copies)
    elif copies == "autocast":
        training = Training(number, copies=copies)
    expected = ROWS * LENGTH * kept_by_layer(shape, training) + mask_of_layer(number, ROWS, LENGTH)
    if trained != "all weights" and copies == "autocast":  # which also keeps adapters in 16 bits
        expected += number * shape.adapter_parameters(RANK, adapted) // shape.layers
    elif copies == "autocast":
        expected += number * shape.matrix_parameters() // shape.layers
    # Falcon saves a few numbers besides, whatever the sizes.
    assert (found[1] - found[0]) / 2 == pytest.approx(expected, abs=64 if family == "falcon" else 0)
