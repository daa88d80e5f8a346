"""What a decoder's layers keep for the backward pass, and what they need while they compute, in bytes per token.

Counted operation by operation as transformers 5 writes its layers, with scaled dot product attention (flash or memory
efficient: no scores of tokens x tokens are kept) and nothing compiled. b below is the width of a number, 4 in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.plan.architecture import Architecture, Linear

FLOAT32 = 4


@dataclass(frozen=True)
class Training:
    """What of the layers is trained, and in which format they compute."""

    number: int
    """Bytes of a number of the weights and the layers' results (b)."""
    adapted: tuple[Linear, ...] | None = None
    """Matrices with a LoRA adapter; None where all weights are trained."""
    rank: int = 0
    copies: Literal["shared", "autocast", "float32"] = "shared"
    """In which form an adapter keeps its input: the layer's own tensor where formats are equal; under autocast (the
    trainers, 16 bits) a copy for each adapter in the weights' format; without it (PPO, 16 bits) one in float32. Where
    all weights are trained, `autocast` says that they are float32 and computed with in 16 bits."""

    @property
    def between_layers(self) -> int:
        """Bytes of a number of what flows from layer to layer, beside the results of products."""
        return FLOAT32 if self.adapted is None and self.copies == "autocast" else self.number

    def inputs(self, width: int, names: tuple[str, ...], *, kept_anyway: bool = False) -> int:
        """Bytes kept of one input of `width` numbers, which the matrices `names` read, for their gradients."""
        if self.adapted is None:
            each = len(names) if self.copies == "autocast" else 1  # which makes a copy for every matrix
            return 0 if kept_anyway else each * self.number * width
        readers = sum(linear.name in names for linear in self.adapted)
        if self.copies == "shared":
            return self.number * width if readers and not kept_anyway else 0
        return readers * width * (FLOAT32 if self.copies == "float32" else self.number)

    def low_rank(self) -> int:
        """Bytes kept between the two halves of a layer's adapters."""
        kept = FLOAT32 if self.copies == "float32" else self.number
        return kept * self.rank * len(self.adapted or ())


def kept_by_layer(shape: Architecture, training: Training) -> int:
    """Bytes per token that one layer keeps from its forward pass for its backward pass."""
    b, width, q, wide = training.number, shape.hidden, shape.query_width, shape.intermediate
    # Queries, keys and values (repeated for every head, for padding needs a mask) and the result; a sum per head.
    attention = b * 4 * q + FLOAT32 * shape.heads
    if shape.family == "phi3" and shape.kv_heads == shape.heads:
        # Values that are not repeated for more heads keep the queries and keys that they were joined with.
        attention += b * 2 * q
    if shape.family == "falcon":
        # Under autocast a GPU computes each of the two norms from a copy of the input in float32.
        norms = 2 * FLOAT32 * width if training.copies == "autocast" else b * width
        norms += 4 * (FLOAT32 if training.copies == "autocast" else b)
        inputs = training.inputs(width, shape.attention_readers) + training.inputs(width, shape.mlp_readers)
        inputs += training.inputs(q, ("dense",), kept_anyway=True) + training.inputs(wide, ("dense_4h_to_h",))
        return norms + attention + b * wide + inputs + training.low_rank()
    # RMS norms compute in float32, and keep their input so; a trained one also keeps what it scales.
    norms = 2 * (
        FLOAT32 * width + FLOAT32 + (training.between_layers * width if training.adapted is None else 0)
    )
    if shape.family == "qwen3":
        of_heads = q + shape.kv_width
        norms += FLOAT32 * (of_heads + shape.heads + shape.kv_heads)
        norms += b * of_heads if training.adapted is None else 0
    inputs = training.inputs(width, shape.attention_readers)
    # Phi's queries lie head by head, and so does the attention's result, of which the next matrix reads a copy.
    inputs += training.inputs(q, ("o_proj",), kept_anyway=shape.family != "phi3")
    inputs += training.inputs(width, shape.mlp_readers) + training.inputs(wide, ("down_proj",))
    return norms + attention + b * 3 * wide + inputs + training.low_rank()


def mask_of_layer(number: int, rows: int, length: int) -> int:
    """Bytes of the attention mask in the layers' format, which attention keeps once a layer where rows are padded."""
    return number * rows * length**2


def backward_workspace(shape: Architecture, training: Training) -> int:
    """Bytes per token that a layer's backward pass holds beside what was kept: where the gradient of the MLP's last
    product becomes those of its two factors, and the gradients that flow beside it.

    By then the input of the MLP's last matrix, where it was kept, has been let go; before, an adapter's gradient of a
    copy of it is in float32.
    """
    b, width, wide = training.number, shape.hidden, shape.intermediate
    last = ("dense_4h_to_h",) if shape.family == "falcon" else ("down_proj",)
    products = b * (3 if shape.gated else 2) * wide - training.inputs(wide, last)
    if training.copies != "shared" and training.inputs(wide, last):
        products = max(products, FLOAT32 * wide)
    return products + training.between_layers * 2 * width


def forward_workspace(shape: Architecture, number: int, adapted: Sequence[Linear] = ()) -> int:
    """Bytes per token that a layer holds while it computes, where nothing is kept: in the MLP.

    With adapters that are not merged: the first factor and the second's own result, and the adapter's part of it
    before and after it is scaled, which is in float32.
    """
    products = number * (3 if shape.gated else 2) * shape.intermediate
    if any(linear.name in ("up_proj", "dense_h_to_4h", "gate_up_proj") for linear in adapted):
        joined = 2 if shape.family == "phi3" else 1
        products = max(products, (2 * number + 2 * joined * FLOAT32) * shape.intermediate)
    return products + number * 2 * shape.hidden


def activations(
    shape: Architecture, training: Training, *, rows: int, length: int, checkpointing: bool
) -> int:
    """Bytes at the peak of a forward and backward pass of `rows` rows of `length` tokens, without what the output layer
    takes: at the end of the forward pass everything is kept, and the last layer's backward pass begins.

    With `checkpointing` each layer keeps its input alone, and one layer at a time computes the rest again.
    """
    tokens = rows * length
    layer = tokens * kept_by_layer(shape, training) + mask_of_layer(training.number, rows, length)
    workspace = tokens * backward_workspace(shape, training)
    last_norm = tokens * (FLOAT32 + training.between_layers) * shape.hidden
    if checkpointing:
        return tokens * shape.layers * training.between_layers * shape.hidden + layer + workspace + last_norm
    return shape.layers * layer + workspace + last_norm
