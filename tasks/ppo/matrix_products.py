"""Products of activations with a frozen matrix, by whichever of the CPU's libraries is fast everywhere.

torch multiplies float32 matrices on CPUs by MKL, which on processors other than Intel's leaves half of their width
unused (measured on a Zen 5 core: 105 GFLOP/s, and 230 by oneDNN). torch comes with oneDNN as well but calls it for
lower precision alone. The results are the same up to float32's rounding.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def by_onednn(*matrices: "Tensor") -> bool:
    """Whether oneDNN can multiply these: float32 on a CPU, in a torch that was built with it."""
    import torch

    return (
        all(part.dtype == torch.float32 and part.device.type == "cpu" for part in matrices)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def times_transposed(states: "Tensor", weight: "Tensor", bias: "Tensor | None" = None) -> "Tensor":
    """states [N, k] times the transpose of weight [n, k], plus bias [n]: [N, n]. Autograd does not see it."""
    import torch

    states, weight = states.detach(), weight.detach()
    if len(states) and by_onednn(states, weight):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(states, weight, bias)


def times(states: "Tensor", weight: "Tensor") -> "Tensor":
    """states [N, n] times weight [n, k]: [N, k]. Autograd does not see it."""
    return times_transposed(states, weight.t())
