"""Stage: how likely a model finds texts that a training had nothing to do with: whether anything else got worse."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import Example, read_examples, read_records, write_rows
from tasks.core.generators.base import Message
from tasks.core.generators.load import EngineConfig, load_local
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.evaluate import bootstrap_interval
from tasks.problems.dialogue import read_turns
from tasks.reversal.words import split_words


class LossInputs(BaseModel):
    """A model, and rows as `tasks.reversal.corpus` writes them."""

    model: ModelRef
    rows: DatasetRef


class LossResult(BaseModel):
    """The mean loss."""

    loss: float
    """Mean over the rows of the mean negative log-likelihood of a row's tokens, in nats per token."""
    rows: DatasetRef
    """The loss of every row, in their order."""


class LossChange(BaseModel):
    """The loss of one model beside that of the model it came from, over the same rows."""

    before: float
    after: float
    low: float
    """Paired bootstrap interval of the difference."""
    high: float
    rows: int

    @property
    def worse(self) -> bool:
        """Whether the loss rose by more than the choice of rows explains."""
        return self.low > 0

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {"general/loss_before": self.before, "general/loss": self.after}


def run(config: EngineConfig, inputs: LossInputs, out: Path, report: Report) -> LossResult:
    """The loss of answers after their questions, and of plain texts after their first word; a text of one word is left
    out. Raises UserError when no row is left, or one does not fit into the model's context."""
    cut = [_cut(row) for row in read_examples(inputs.rows)]
    rows = [(prompt, target) for prompt, target in cut if target]
    if not rows:
        raise UserError("no text has more than one word", field="general.rows", mend="give longer texts")
    found = load_local(inputs.model, config).log_likelihood(*zip(*rows, strict=True))
    if None in found:
        raise UserError(
            f"{found.count(None)} of {len(found)} texts are longer than the model's context",
            field="general.rows",
            mend="shorten them, or take a model with a longer context",
        )
    losses = [-one[0] / one[1] for one in found if one is not None]
    return LossResult(
        loss=sum(losses) / len(losses),
        rows=write_rows(out / "losses.jsonl", ({"loss": one} for one in losses)),
    )


def change(
    before: LossResult, after: LossResult, *, confidence: float, resamples: int, seed: int
) -> LossChange:
    """How the loss changed, with a bootstrap interval over rows: each is drawn with both of its losses."""
    pairs = zip(read_records(before.rows), read_records(after.rows), strict=True)
    rises = [second["loss"] - first["loss"] for first, second in pairs]
    low, high = bootstrap_interval(rises, confidence, resamples, seed)
    return LossChange(before=before.loss, after=after.loss, low=low, high=high, rows=len(rises))


def _cut(row: Example) -> tuple[list[Message], str]:
    if row.input:
        return read_turns(row.input), row.target
    parts = split_words(row.target)
    first = "".join(parts[:2])
    return [{"role": "assistant", "content": first}], row.target[len(first) :] if len(parts) > 3 else ""


STAGE = Stage("general_loss", run, EngineConfig, LossInputs, LossResult, own_process=True)
