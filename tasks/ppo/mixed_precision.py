"""Full weights that are trained: held in float32, computed with in the precision that was asked for.

In bfloat16 neighbouring numbers lie 0.4 to 0.8 % apart, so that AdamW's steps of a small learning rate are rounded away
and hardly a weight moves (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1: a master copy in float32).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tasks.core.models import Precision, torch_dtype


def computing(model: Any, precision: Precision) -> AbstractContextManager[None]:
    """A context, to be entered as often as one likes, in which the float32 weights of `model` are cast to `precision`
    wherever they are multiplied (torch's autocast)."""
    import torch

    dtype = torch_dtype(precision)
    return nullcontext() if dtype == torch.float32 else _Autocast(model.device.type, dtype)


class _Autocast(AbstractContextManager[None]):
    def __init__(self, device: str, dtype: Any) -> None:
        self._device, self._dtype = device, dtype
        self._entered: list[Any] = []  # torch's own context remembers one entry alone

    def __enter__(self) -> None:
        import torch

        self._entered.append(torch.autocast(self._device, self._dtype))
        self._entered[-1].__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._entered.pop().__exit__(*raised)
