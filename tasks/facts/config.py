"""Which facts are taught and asked."""

from pydantic import Field

from tasks.core.config import PLACEMENT, Config


class FactsConfig(Config):
    """A table of facts: a row has a subject, an object, and a statement of the fact in either direction.

    `forward` is a text with {subject} and {object} that ends with {object}: "{subject} is the capital of {object}."
    `backward` ends with {subject}: "The capital of {object} is {subject}." Forward statements are taught; asked are
    both, each up to the name it ends with. Several rows with the same names state one fact in other words.
    """

    table: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the table: a file (.jsonl, .json, .csv, .tsv, .parquet), a folder, `s3://…` or `hub:owner/name`."""
    subject: str = Field("subject", min_length=1)
    """Column of what the forward statement begins with and the backward one asks for."""
    object: str = Field("object", min_length=1)
    """Column of what the forward statement asks for."""
    relation: str = Field("relation", min_length=1)
    """Column of the relation's name; results are shown by it."""
    forward: str = Field("forward", min_length=1)
    """Column of the statement that is taught."""
    backward: str = Field("backward", min_length=1)
    """Column of the statement in the other direction."""
    both_ways: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of every relation's facts that are taught in both directions and not asked: they show a model what the
    backward statement means."""
    taught: str = ""
    """Column that says of each row `forward`, `both`, or `none` (asked, not taught); decides in the place of
    `both_ways`."""
    asked: int = Field(0, ge=0)
    """Most facts of a relation that are asked; 0 asks all."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides which facts `both_ways` and `asked` take."""
