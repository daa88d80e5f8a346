"""Memory of the stages that only read and write: generation, and scoring by a reward model."""

from collections.abc import Sequence

from tasks.core.generators.buffered_cache import ROOM
from tasks.plan.activations import FLOAT32, forward_workspace, mask_of_layer
from tasks.plan.architecture import Architecture, Linear
from tasks.plan.memory import Memory, fullest
from tasks.reward_model.scoring import MAX_BATCH_TOKENS as SCORED_TOKENS

BATCH_TOKENS = 32768
"""Of all rows in flight, prompt and completion together: what generators and PPO's sampler take."""


def rows_in_flight(most: int, prompt: int, new: int) -> int:
    """Rows that are continued together."""
    return max(1, min(most, BATCH_TOKENS // (prompt + new)))


def writing(
    shape: Architecture,
    static: Memory,
    number: int,
    *,
    rows: int,
    prompt: int,
    new: int,
    adapted: Sequence[Linear] = (),
    devices: int = 1,
) -> Memory:
    """Generation beside what lasts (`static`), with at most `rows` rows of `prompt` tokens that each write `new`;
    `adapted` are the matrices that adapters lie on, unmerged. With several `devices` (tensor parallelism) it is what
    each of them holds, and `static` too: heads and widths are divided, logits are brought together.

    Prompts are read into a cache of their own, which is copied into the buffers of all rows; then each step makes
    logits of one token per row.
    """
    rows = rows_in_flight(rows, prompt, new)
    # A head of keys and values lies on one device at least.
    column = 2 * number * shape.layers * shape.kv_width * rows / min(devices, shape.kv_heads)
    reading = rows * prompt * forward_workspace(shape, number, adapted) / devices
    mask = mask_of_layer(
        number + 1, rows, prompt
    )  # as bool for all layers, and as numbers for the one at work
    # In the layers' format and in float32: scaled, as probabilities, and summed up.
    logits = rows * shape.vocabulary * (number + 4 * FLOAT32)
    return fullest(
        [
            static.at("prompts are read", cache=column * prompt, activations=reading + mask),
            static.at("prompts are read", cache=column * (2 * prompt + ROOM)),
            static.at("tokens are written", cache=column * (prompt + new + ROOM), logits=logits),
        ]
    )


def scoring(shape: Architecture, static: Memory, number: int, *, rows: int, length: int) -> Memory:
    """A reward model reads `rows` rows of `length` tokens at once, as many as make a batch."""
    rows = max(1, min(rows, SCORED_TOKENS // length))
    reading = rows * length * forward_workspace(shape, number) + mask_of_layer(number + 1, rows, length)
    return static.at("answers are read", activations=reading)
