"""How rows are labelled with batched prompts."""

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.label.voting import Vote


class LabellingConfig(Config):
    """Many rows in one prompt, several rounds in other orders, a vote. Defaults are the published ones."""

    batch_size: int = Field(32, ge=1, le=1000)
    """Rows in one prompt; 1 asks for each alone, in the problem's own prompt."""
    rounds: int = Field(5, ge=1, le=99)
    """How often every row is asked for, each time in another order; odd, so that a vote between two answers decides."""
    vote: Vote = "majority"
    """`majority` counts every round alike; `weighted` counts those less in which the model was not confident."""
    unsure_weight: float = Field(0.2, ge=0.0, le=1.0)
    """What such a round counts in a weighted vote, where a confident one counts 1."""
    stop_early: bool = True
    """Ask no further for a row once two rounds in a row were confident of the same answer."""
    refill: bool = True
    """Put rows of several batches together as batches shrink, which saves calls; as published, they shrink alone."""
    ask_again: int = Field(1, ge=0, le=10)
    """How often a row without a readable answer is asked for alone, in every round."""
    context: int = Field(0, ge=0)
    """Most tokens of prompt and answer together; batches become smaller where they would not fit. 0 takes the context
    of a model in this process; of a server it is not known, and a batch that is refused is halved."""
    max_new_tokens: int = Field(0, ge=0, le=4096)
    """Longest answer to one row in tokens; 0 takes what the problem needs."""
    temperature: float = Field(0.0, ge=0.0, le=5.0)
    """0 is greedy: rounds differ by their orders alone."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling, when the temperature is not 0."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides the orders and what is sampled."""
    input_price: float = Field(0.0, ge=0.0, json_schema_extra=PLACEMENT)
    """Money for a million tokens of prompts."""
    output_price: float = Field(0.0, ge=0.0, json_schema_extra=PLACEMENT)
    """Money for a million tokens of answers."""


def check(config: LabellingConfig, field: str = "labelling") -> None:
    """Raise UserError for a number of rounds that cannot decide between two answers."""
    if config.rounds % 2 == 0:
        raise UserError(
            f"{config.rounds} rounds can end in a draw",
            field=f"{field}.rounds",
            mend=f"take an odd number, {config.rounds - 1} or {config.rounds + 1}",
        )
