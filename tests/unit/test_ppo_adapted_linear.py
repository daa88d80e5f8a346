"""A matrix with adapters in one function of autograd: the numbers and gradients of PEFT's own layer, and when it leaves
the work to that."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear

from tasks.ppo.adapted_linear import fuse_adapters
from tasks.ppo.adapters import AdapterSwitch
from tasks.ppo.matrix_products import by_onednn, times, times_transposed

SHAPE = (3, 5, 24)


class Body(torch.nn.Module):
    """Two matrices, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(24, 40), torch.nn.Linear(40, 8, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def twins(dtype=torch.float32, **changes):
    """A model with two adapters, both away from their start, as PEFT computes it, and the same one fused."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["first", "second"], **changes)
    model = get_peft_model(Body().to(dtype), config, adapter_name="policy")
    model.add_adapter("value", config)
    with torch.no_grad():
        for name, part in model.named_parameters():
            part.requires_grad_("lora_" in name)
            if "lora_" in name:
                part.copy_(0.3 * torch.randn(part.shape))
    fused = copy.deepcopy(model)
    fuse_adapters(fused)
    return model.eval(), fused.eval()


def gradients(model, name, x):
    """Output, and the gradients of a sum with weights of its own, of the input and of all that trains."""
    x = x.clone().requires_grad_()
    with AdapterSwitch(model).to(name):
        output = model(x)
        (output * torch.arange(output.numel()).view(output.shape)).sum().backward()
    found = {key: part.grad for key, part in model.named_parameters() if part.grad is not None}
    model.zero_grad(set_to_none=True)
    return output.detach(), x.grad, found


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}])
@pytest.mark.parametrize("name", ["policy", "value"])
def test_numbers_and_gradients_are_those_of_peft(name, changes):
    plain, fused = twins(**changes)
    x = torch.randn(SHAPE)
    expected, found = gradients(plain, name, x), gradients(fused, name, x)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-3, rtol=1e-4)
    assert found[2].keys() == expected[2].keys()
    assert all(f".{name}." in key for key in found[2])
    for key, gradient in expected[2].items():
        torch.testing.assert_close(found[2][key], gradient, atol=1e-3, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", ["policy", None])
def test_without_gradients_and_without_rows(name):
    plain, fused = twins()
    for x in (torch.randn(SHAPE), torch.randn(0, 24)):
        with torch.inference_mode(), AdapterSwitch(plain).to(name), AdapterSwitch(fused).to(name):
            torch.testing.assert_close(fused(x), plain(x), atol=1e-5, rtol=1e-5)


def test_the_base_alone_still_has_gradients_for_its_input():
    plain, fused = twins()
    x = torch.randn(SHAPE)
    torch.testing.assert_close(gradients(fused, None, x)[1], gradients(plain, None, x)[1])


def test_other_precisions_are_pefts():
    plain, fused = twins(torch.bfloat16)
    x = torch.randn(SHAPE).bfloat16()
    with torch.no_grad(), AdapterSwitch(plain).to("policy"), AdapterSwitch(fused).to("policy"):
        assert torch.equal(fused(x), plain(x))


def test_a_merged_adapter_is_not_added_twice():
    plain, fused = twins()
    x = torch.randn(SHAPE)
    fused.merge_adapter(["policy"])
    with torch.no_grad(), AdapterSwitch(plain).to("policy"):
        torch.testing.assert_close(fused(x), plain(x), atol=1e-5, rtol=1e-5)


def test_frozen_adapters_and_what_they_lie_on_get_no_gradient():
    _, fused = twins()
    for key, part in fused.named_parameters():
        part.requires_grad_(".value." in key and "second" in key)
    _, of_input, found = gradients(fused, "value", torch.randn(SHAPE))
    assert of_input is not None
    assert sorted(key.rpartition("second.")[2] for key in found) == [
        "lora_A.value.weight",
        "lora_B.value.weight",
    ]


def test_layers_are_still_pefts_own():
    _, fused = twins()
    layers = [module for module in fused.modules() if isinstance(module, Linear)]
    assert len(layers) == 2
    assert all(type(layer) is not Linear for layer in layers)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_products_are_those_of_torch(rows):
    generator = torch.Generator().manual_seed(rows)
    states, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((rows, 24), (40, 24), (40,))
    )
    torch.testing.assert_close(times_transposed(states, weight, bias), states @ weight.t() + bias)
    torch.testing.assert_close(times(states, weight.t()), states @ weight.t())
    doubles = states.double(), weight.double()
    assert torch.equal(times_transposed(*doubles), torch.nn.functional.linear(*doubles))


def test_products_hide_from_autograd_and_from_lower_precision():
    x = torch.ones(1, 2, requires_grad=True)
    assert not times_transposed(x, torch.ones(3, 2)).requires_grad
    assert not by_onednn(torch.ones(1, dtype=torch.bfloat16))
