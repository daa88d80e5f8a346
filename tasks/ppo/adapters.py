"""Which adapter of a shared base is at work: switched in a context, and as it was when activations are recomputed."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any


class AdapterSwitch:
    """Switches the LoRA layers of a PEFT model, made after its last adapter was added.

    PEFT's own switch makes the adapter it goes to trainable and all others not: an adapter whose gradients are still
    to come would get none, a frozen one would train, and an optimizer, DDP and DeepSpeed hold on to what was trainable
    when they were made. So only the layers' own pointer to an adapter is moved here, and `requires_grad` stays.
    """

    def __init__(self, model: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        self.active: str | None = None
        """The adapter at work; None for the base alone."""
        self.set(None)

    def set(self, name: str | None) -> None:
        """Put an adapter to work, or none."""
        self.active = name
        for layer in self._layers:
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]

    def to(self, name: str | None) -> AbstractContextManager[None]:
        """A context, to be entered as often as one likes, in which adapter `name` is at work (None: the base alone)."""
        return _At(self, name)

    def checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For `torch.utils.checkpoint`: what holds in the forward pass, and in its recomputation, which comes when
        another adapter may be at work."""
        return nullcontext(), self.to(self.active)


class _At(AbstractContextManager[None]):
    def __init__(self, switch: AdapterSwitch, name: str | None) -> None:
        self._switch, self._name = switch, name
        self._before: list[str | None] = []

    def __enter__(self) -> None:
        self._before.append(self._switch.active)
        self._switch.set(self._name)

    def __exit__(self, *_: object) -> None:
        self._switch.set(self._before.pop())
