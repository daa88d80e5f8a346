"""How a teacher is asked for new rows."""

from typing import Literal

from pydantic import Field

from tasks.core.config import Config


class AugmentConfig(Config):
    """How new rows are asked for."""

    rows: int = Field(1, ge=1, le=1000)
    """New rows wanted from every failed row, per iteration."""
    oversample: float = Field(1.0, ge=1.0, le=20.0)
    """Ask for so many times the rows that are wanted, so that the filter, and the judges, have a choice."""
    attempts: int = Field(4, ge=1, le=100)
    """How often the teacher is asked again for rows that the filter rejected; then the shortfall is reported."""
    form: Literal["request", "turns", "evol"] = "request"
    """`request` asks in words for several rows at once (published). `turns` shows a chat of finished exchanges, a
    row each, and asks for one more: the form for small teachers, which continue better than they obey. `evol` asks
    for each row to be evolved (Evol-Instruct): made harder in one of four ways, or another one of its field."""
    breadth_share: float = Field(0.2, ge=0.0, le=1.0)
    """`evol`: the share of evolutions in breadth; the others are in depth (published: one operation of five)."""
    system: str = ""
    """What the teacher is told before `turns`: say what the texts are ("requests to a voice assistant")."""
    shown: int = Field(0, ge=0, le=100)
    """Further rows of the same class the teacher sees as examples; the paper shows none."""
    contrast: int = Field(0, ge=0, le=20)
    """Rows of every other class it sees as well, in `turns`."""
    temperature: float = Field(1.0, ge=0.0, le=5.0)
    """Sampling temperature of the teacher."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling of the teacher."""
    max_new_tokens: int = Field(512, ge=1, le=32768)
    """Longest answer of the teacher, in tokens."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the sampling and of the choice of shown rows."""
