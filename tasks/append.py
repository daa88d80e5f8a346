"""Stage: join data sets; the training data of the next iteration is all that came before plus what was kept."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.examples import read_records, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class AppendInputs(BaseModel):
    """Data sets to be joined, in order."""

    parts: list[DatasetRef]


class AppendResult(BaseModel):
    """All rows as one data set."""

    joined: DatasetRef


def run(config: Config, inputs: AppendInputs, out: Path, report: Report) -> AppendResult:
    """Write the parts' rows one after the other."""
    rows = (record for part in inputs.parts for record in read_records(part))
    return AppendResult(joined=write_rows(out / "joined.jsonl", rows))


STAGE = Stage("append", run, Config, AppendInputs, AppendResult)
