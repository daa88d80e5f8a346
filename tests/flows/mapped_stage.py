"""A stage for the tests of mapped tasks: says a text loudly, and keeps a diary of when it began and ended."""

import os
import time
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.stage import Report, Stage

PATIENCE_S = 60.0


class ShoutConfig(Config):
    """Where the diary is, and what goes on; none of it is part of the cache key."""

    diary: str = Field("", json_schema_extra=PLACEMENT)
    """A file that gets "begin TEXT PROCESS" and "end TEXT PROCESS"."""
    together: int = Field(1, json_schema_extra=PLACEMENT)
    """A call ends only when so many have begun."""
    broken: str = Field("", json_schema_extra=PLACEMENT)
    """The text that cannot be said."""
    forever: bool = Field(False, json_schema_extra=PLACEMENT)
    """Whether a call never ends."""


class ShoutInputs(BaseModel):
    """One text."""

    text: str


class ShoutResult(BaseModel):
    """The text in capitals."""

    loud: str


def run(config: ShoutConfig, inputs: ShoutInputs, out: Path, report: Report) -> ShoutResult:
    """Say it."""
    diary = Path(config.diary)
    _write(diary, "begin", inputs.text)
    if inputs.text == config.broken:
        raise UserError(f"{inputs.text} cannot be said", field="shout.text", mend="say something else")
    deadline = time.monotonic() + PATIENCE_S
    while config.forever or diary.read_text().count("begin") < config.together:
        assert time.monotonic() < deadline, "the others never began"
        time.sleep(0.01)
    report({"progress": [1, 1], "text": "said"})
    (out / "loud.txt").write_text(inputs.text.upper())
    _write(diary, "end", inputs.text)
    return ShoutResult(loud=inputs.text.upper())


def _write(diary: Path, word: str, text: str) -> None:
    with diary.open("a") as file:
        file.write(f"{word} {text} {os.getpid()}\n")


STAGE = Stage("shout", run, ShoutConfig, ShoutInputs, ShoutResult)
