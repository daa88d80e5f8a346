"""How long a stage takes on a device: its arithmetic over what the device achieves of its peak.

The shares are assumptions, stated here; `calibrated` measures them on the device at hand instead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import UserError
from tasks.plan.architecture import Architecture
from tasks.plan.memory import GB
from tasks.plan.work import Work

_VOCABULARY = 1024
"""Rows of the embedding that a calibration builds."""


@dataclass(frozen=True)
class Speed:
    """What a device does in a second, and what an hour of it costs."""

    name: str
    flops: float
    """Peak multiplications and additions per second in 16 bits, without sparsity."""
    bandwidth: float
    """Bytes per second that its memory gives."""
    link: float
    """Bytes per second that come from the other devices of the machine,"""
    price: float
    """Dollars of an hour, roughly what such devices are let for."""
    host_link: float = 25e9
    """and from the machine's memory,"""
    network: float = 25e9
    """and from other machines: 200 Gbit/s for each device."""
    training: float = 0.35
    """Share of the peak that training achieves."""
    reading: float = 0.4
    """Share that reading prompts achieves."""
    writing: float = 0.5
    """Share of the bandwidth that generation achieves."""
    sharing: float = 0.9
    """What is left of the speed where several devices train together."""


SPEEDS = {
    24.0: Speed("L4", 121e12, 0.30e12, 25e9, 0.8),
    40.0: Speed("A100 40 GB", 312e12, 1.56e12, 250e9, 1.6),
    80.0: Speed("H100", 989e12, 3.35e12, 350e9, 3.0),
    141.0: Speed("H200", 989e12, 4.8e12, 350e9, 4.0),
}
"""By GB of memory. Peaks are those of the makers' data sheets."""


@dataclass(frozen=True)
class Pass:
    """How a stage passes through its model."""

    full: bool
    """All weights are trained, so that the backward pass has their gradients to compute as well."""
    checkpointing: bool
    """Activations are computed twice."""
    rows: int
    """Rows that a device writes together."""
    number: int
    """Bytes of a weight."""
    devices: int
    """Devices that share the training."""
    batch_tokens: float = 1.0
    """Tokens that pass through all of them together at once,"""
    gathered: bool = False
    """for which every device gathers the weights (ZeRO-3),"""
    from_host: bool = False
    """its part from the machine's memory."""
    machines: int = 1
    """Machines that the devices are in."""

    @property
    def per_token(self) -> int:
        """Multiplications and additions per trained token and parameter: two forward, two for the gradients of what is
        computed, two for those of the weights, two for what is computed again."""
        return 4 + 2 * self.full + 2 * self.checkpointing


def seconds(shape: Architecture, work: Work, how: Pass, speed: Speed) -> float:
    """Seconds for the tokens of `work`, without what loading a model takes; devices that train together share what is
    read and written as well, each by itself.

    A written token needs all weights from memory once for all rows that are written together. Attention itself is left
    out: at 1,000 tokens it is a few per cent of the arithmetic of a layer.
    """
    parameters = shape.parameters()
    together = speed.sharing if how.devices > 1 else 1.0
    training = (
        work.trained * how.per_token * parameters / (speed.flops * speed.training * how.devices * together)
    )
    passes = (2 + how.checkpointing) * work.trained / how.batch_tokens
    size = how.number * parameters
    link = speed.link if how.machines == 1 else min(speed.link, speed.network)
    training += passes * size * (how.gathered / link + how.from_host / (how.devices * speed.host_link))
    reading = work.read * 2 * parameters / (speed.flops * speed.reading * how.devices)
    arithmetic = 2 * parameters * how.rows / (speed.flops * speed.reading)
    step = max(arithmetic, size / (speed.bandwidth * speed.writing))
    return training + reading + work.written / (how.rows * how.devices) * step


def calibrated(shape: Architecture, number: int, *, tokens: int = 256) -> Speed:
    """The speed of the device at hand (a GPU where there is one), from some seconds of two of the model's layers: so
    that peaks are what was achieved, and shares are 1. Raises UserError where those do not fit into its free memory."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if number == 2 else torch.float32
    layers = _two_layers_of(shape)
    size, free = 2 * number * layers.body_parameters(), _free_bytes()
    if size > free:
        raise UserError(
            f"two of the layers and their gradients take {size / GB:.1f} GB, and {free / GB:.1f} GB are free here",
            field="--calibrate",
            mend="leave it out, or calibrate with a smaller model",
        )
    model = _build(layers, device, dtype)
    weights = sum(parameter.numel() for parameter in model.parameters()) - layers.vocabulary * layers.hidden

    def passed(length: int, *, train: bool) -> None:
        ids = torch.randint(0, layers.vocabulary, (1, length), device=device)
        with torch.set_grad_enabled(train):
            out = model(input_ids=ids).last_hidden_state
            if train:
                out.float().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    trained = 6 * weights * tokens / _fastest(lambda: passed(tokens, train=True))
    read = 2 * weights * tokens / _fastest(lambda: passed(tokens, train=False))
    step = _fastest(lambda: passed(1, train=False))
    return Speed(
        f"this machine's {device}",
        trained,
        number * weights / step,
        link=25e9,
        price=0.0,
        training=1.0,
        reading=read / trained,
        writing=1.0,
    )


def _fastest(call: Callable[[], object], *, budget_s: float = 2.0) -> float:
    """Seconds of the fastest of some calls, after one that warms up."""
    call()
    times: list[float] = []
    begun = time.perf_counter()
    while not times or time.perf_counter() - begun < budget_s:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return min(times)


def _two_layers_of(shape: Architecture) -> Architecture:
    """A Llama of two layers as wide as the model's; of the embedding, which costs no arithmetic, a part is enough."""
    plain = {"qkv_bias": False, "output_bias": False, "mlp_bias": False, "tied": True}
    small = {"layers": 2, "vocabulary": min(shape.vocabulary, _VOCABULARY)}
    return shape.model_copy(update={"family": "llama"} | plain | small)


def _build(shape: Architecture, device: str, dtype: Any) -> Any:
    """The model without its head, where and in which numbers it computes from the beginning."""
    import torch
    from transformers import AutoModel, LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
    )
    with torch.device(device):
        return AutoModel.from_config(config, dtype=dtype)


def _free_bytes() -> float:
    """Of the GPU or, where there is none, of this machine."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return float(psutil.virtual_memory().available)
