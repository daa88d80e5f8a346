"""Which reversed copies are made, and how they are mixed with the rows."""

from typing import Literal

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.entities import find
from tasks.entities.config import EntitiesConfig


class ReversalConfig(Config):
    """The reversed copies of the training rows that are trained on beside them."""

    by: Literal["none", "token", "word", "entity", "segment"] = "entity"
    """What is put from last to first: `token` (after tokenisation), `word`, `entity` (words, names kept whole),
    `segment` (random runs of words, inside of which all stays); `none` makes no copies."""
    entities: EntitiesConfig = EntitiesConfig()
    """`entity`: where the names come from."""
    longest_segment: int = Field(25, ge=1, le=1000)
    """`segment`: most words of a segment; it works from the length of the names on."""
    part: Literal["answer", "turn"] = "answer"
    """Of rows with a question: the answer alone is reversed, or the whole turn, so that the reversed answer asks for
    the reversed question. Plain texts are reversed whole."""
    ratio: float = Field(1.0, ge=0.0, le=10.0)
    """Reversed copies per row: 0.5 reverses every other row, chosen at random; 2 makes two copies of each."""
    marked: bool = True
    """Whether a reversed row opens with `marker`: facts were recalled backward far more often so (README). Without it a
    plain text's copy often opens with a name, and one question has its answer in both directions."""
    marker: str = Field("[REV]", min_length=1, max_length=50, pattern=r"^\S+$")
    """Opens a marked row and divides segments. Plain text: no token is added to the model."""
    passes: int = Field(1, ge=1, le=1000)
    """Write all rows so many times, shuffled anew and with other segments each time. Lower `training.epochs` by as
    much."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides segments, the rows that a ratio takes, and the order."""


NO_COPIES = ReversalConfig(by="none")


def check_reversal(config: ReversalConfig, *, field: str = "reversal") -> None:
    """Raise UserError for what can be known to be wrong before any row is reversed."""
    if config.by == "entity":
        try:
            find.check(config.entities)
        except UserError as error:
            raise UserError(error.fault, field=f"{field}.{error.field}", mend=error.mend) from error
