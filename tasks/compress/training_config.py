"""How a compressor is trained."""

from typing import Literal

from pydantic import Field

from tasks.sft.optimiser_config import OptimiserConfig


class CompressorTrainingConfig(OptimiserConfig):
    """How the encoder learns which words are kept. Learning rate, epochs and batch size are the published ones."""

    method: Literal["lora", "qlora", "full"] = "full"
    """Train all weights (published), or an adapter that is merged in the end; `qlora` is for decoders."""
    learning_rate: float = Field(1e-5, gt=0.0, le=1.0)
    """Peak learning rate. A small encoder wants more: 1e-4 for all-MiniLM."""
    epochs: float = Field(10.0, gt=0.0, le=1000.0)
    """Passes over the pairs."""
    batch_size: int = Field(10, ge=1, le=4096)
    """Chunks per forward pass and process. Lower it when memory runs out, and raise `gradient_accumulation`."""
    max_length: int = Field(512, ge=16, le=8192)
    """Longest chunk in tokens, the encoder's two special ones included."""
    batching: Literal["length", "random", "packed"] = "length"
    """Chunks of similar length together (little padding), or at random; `packed` is for decoders."""
    balance: Literal["none", "inverse"] = "none"
    """Every word counts alike (published), or kept words together count as much as dropped ones together."""
