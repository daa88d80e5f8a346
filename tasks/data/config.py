"""What a user says about the data."""

from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config


class DataConfig(Config):
    """The rows: where they are, which columns count, how many to take.

    An address is a file (.jsonl, .json, .csv, .tsv, .parquet, each also .gz), a folder of such files, an
    fsspec address (s3://bucket/rows.jsonl), a data set of the Hugging Face hub (hub:owner/name,
    hub:owner/name:split, hub:owner/name/configuration:split), or a task of reasoning-gym with its size, seed and
    parameters (gym:chain_sum?size=400&seed=1&max_terms=3), whose columns need no names. The seeds of two such sets
    must be further apart than their sizes, or they share rows.
    """

    train: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the training rows."""
    test: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the test rows; nothing is ever trained or augmented from them."""
    validation: str = Field("", json_schema_extra=PLACEMENT)
    """Address of rows held out to choose by; may stay empty."""
    validation_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the training rows held out as validation when that has no address of its own."""
    problem: str = "classification"
    """`classification`, `numeric`, `multiple_choice`, `exact_match`, `dialogue`, `gym` (tasks of reasoning-gym, scored
    by their verifiers), or your own as `module:Class`."""
    instruction: str = ""
    """What the student is told before every input; empty takes the problem's own."""
    input: str = Field("input", min_length=1)
    """Column of the question or text."""
    target: str = Field("target", min_length=1)
    """Column of the right answer or label."""
    choices: str = ""
    """Column of the choices (a list, or a JSON list as text); needed by multiple_choice only."""
    faulty: Literal["refuse", "drop"] = "refuse"
    """What becomes of rows that do not fit the problem (an empty cell or reply): an error that names them, or leave
    them out and count them."""
    longest_input: int = Field(0, ge=0)
    """Leave out rows whose input has more characters, and count them; 0 takes all."""
    seed_per_label: int = Field(0, ge=0)
    """Train on exactly this many rows of every label; 0 takes all."""
    seed_rows: int = Field(0, ge=0)
    """Train on exactly this many rows, every label in proportion; 0 takes all."""
    test_rows: int = Field(0, ge=0)
    """Test on at most this many rows, every label in proportion; 0 takes all."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides which rows a subset takes."""

    @property
    def validates(self) -> bool:
        """Whether any rows are held out to choose by."""
        return bool(self.validation or self.validation_fraction)

    def asking(self, prompts: str) -> "DataConfig":
        """The same data with all rows at `prompts` as training rows, for their questions."""
        whole = {"seed_rows": 0, "seed_per_label": 0, "validation": "", "validation_fraction": 0.0}
        return self.model_copy(update={"train": prompts} | whole)
