"""A frozen matrix with low-rank adapters beside it, in one step of autograd: faster on a CPU than PEFT's own, and the
same up to rounding."""

from functools import cache
from typing import TYPE_CHECKING, Any

from tasks.ppo.matrix_products import by_onednn, times, times_transposed

if TYPE_CHECKING:
    from torch import Tensor


def fuse_adapters(model: Any) -> None:
    """Let the LoRA layers of a PEFT model compute in one step, once its last adapter was added.

    A layer does it its own way wherever there is more to do than W x + s B A x in float32 on a CPU.
    """
    import torch
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is torch.nn.Linear:
            layer.__class__ = _layer_class()


@cache
def _layer_class() -> type[Any]:
    import torch
    from peft.tuners.lora import Linear

    class AdaptedLinear(Linear):
        """A layer of PEFT's whose product with matrix and adapter is one function of autograd."""

        def forward(self, x: "Tensor", *arguments: Any, **keywords: Any) -> "Tensor":
            frozen = self.base_layer
            weight, bias = frozen.weight, frozen.bias
            names = (
                []
                if self.disable_adapters
                else [name for name in self.active_adapters if name in self.lora_A]
            )
            plain = (
                not (arguments or keywords or self.merged or weight.requires_grad)
                and not (bias is not None and bias.requires_grad)
                and weight.numel() == frozen.out_features * frozen.in_features  # not a shard of DeepSpeed's
                and by_onednn(x, weight)
                and (self._is_plain(names[0]) if len(names) == 1 else not (names or x.requires_grad))
            )
            if not plain:
                found: Tensor = super().forward(x, *arguments, **keywords)
                return found
            states = x.reshape(-1, x.shape[-1])
            if not names:
                product = times_transposed(states, weight, bias)
            else:
                down, up = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
                product = _product()(states, weight, bias, down, up, self.scaling[names[0]])
            return product.view(*x.shape[:-1], frozen.out_features)

        def _is_plain(self, name: str) -> bool:
            down, up = self.lora_A[name], self.lora_B[name]
            return (
                type(down) is torch.nn.Linear
                and name not in self.lora_variant
                and isinstance(self.lora_dropout[name], torch.nn.Identity)
                and up.bias is None
                and down.weight.numel() == down.out_features * down.in_features
                and by_onednn(down.weight, up.weight)
            )

    return AdaptedLinear


@cache
def _product() -> Any:
    import torch

    class AdaptedProduct(torch.autograd.Function):
        """y = x W^T + b + s (x A^T) B^T with W and b frozen. With g the gradient of y:

        dx = g W + s (g B) A,  dA = s (g B)^T x,  dB = s g^T (x A^T)
        """

        @staticmethod
        def forward(
            ctx: Any,
            states: "Tensor",
            weight: "Tensor",
            bias: "Tensor | None",
            down: "Tensor",
            up: "Tensor",
            scale: float,
        ) -> "Tensor":
            inner = states @ down.t()
            ctx.save_for_backward(states, weight, down, up, inner)
            ctx.scale = scale
            return times_transposed(states, weight, bias).addmm_(inner, up.t(), alpha=scale)

        @staticmethod
        def backward(ctx: Any, gradient: "Tensor") -> tuple[Any, ...]:
            states, weight, down, up, inner = ctx.saved_tensors
            of_states = of_down = of_up = None
            of_inner = (gradient @ up).mul_(ctx.scale)
            if ctx.needs_input_grad[0]:
                of_states = times(gradient, weight).addmm_(of_inner, down)
            if ctx.needs_input_grad[3]:
                of_down = of_inner.t() @ states
            if ctx.needs_input_grad[4]:
                of_up = (gradient.t() @ inner).mul_(ctx.scale)
            return of_states, None, None, of_down, of_up, None

    return AdaptedProduct.apply
