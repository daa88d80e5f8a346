"""Stage: the model card of a promoted model (Mitchell et al. 2019, arXiv 1810.03993), in Markdown.

Everything that a user, a file or a model named is escaped: a card is shown by MLflow as a page.
"""

from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.digests import file_digest
from tasks.core.references import DatasetRef, ModelRef, Reference
from tasks.core.stage import Report, Stage
from tasks.promotion.decision import Decision
from tasks.promotion.markdown import cut, escaped, table
from tasks.retrain.versions import DataVersion

_LONGEST = 300


class Ancestor(BaseModel):
    """A version that this one was compared with, directly or not."""

    number: str
    digest: str
    rows: int
    accuracy: float


class CardConfig(Config):
    """How a card is written."""

    longest_text: int = Field(_LONGEST, ge=20, le=5000)
    """A setting's value is cut after this many characters."""


class CardInputs(BaseModel):
    """What the card says."""

    name: str
    number: str
    method: str
    model: ModelRef
    decision: Decision
    data: DataVersion
    new_rows: int
    held_out: DatasetRef
    problem: str
    metrics: dict[str, float] = Field(default_factory=dict)
    """Of the method's last iteration."""
    lineage: list[Ancestor] = Field(default_factory=list)
    """The champions before it, the nearest first."""
    settings: dict[str, str] = Field(default_factory=dict)
    """The method's, by dotted names."""


class Card(BaseModel):
    """The card as a file."""

    card: Reference


def run(config: CardConfig, inputs: CardInputs, out: Path, report: Report) -> Card:
    """Write `out`/model_card.md."""
    path = out / "model_card.md"
    path.write_text(model_card(inputs, config.longest_text), encoding="utf-8")
    return Card(card=Reference(uri=str(path), digest=file_digest(path)))


def model_card(inputs: CardInputs, longest_text: int = _LONGEST) -> str:
    """The card as Markdown."""
    return (
        "\n\n".join(
            [
                f"# {escaped(inputs.name)}, version {escaped(inputs.number)}",
                f"Promoted. {escaped(inputs.decision.words)}.",
                comparison(inputs.decision),
                "## Model",
                _model(inputs),
                "## Data",
                _data(inputs),
                "## Lineage",
                _lineage(inputs.lineage),
                "## Limits",
                _limits(inputs),
                "## Figures of the training",
                table(
                    ["figure", "value"], [[name, f"{value:.6g}"] for name, value in inputs.metrics.items()]
                ),
                "## Settings",
                table(
                    ["setting", "value"],
                    [[name, cut(value, longest_text)] for name, value in inputs.settings.items()],
                ),
            ]
        )
        + "\n"
    )


def comparison(decision: Decision) -> str:
    """Mean scores, gain with its interval, and test, as a table."""
    rows = [["this model", f"{decision.accuracy:.2%}", ""]]
    if decision.opponent_accuracy is not None and decision.test is not None:
        test, level = decision.test, 1 - decision.level
        gain = f"{test.gain * 100:+.2f} points, {level:.0%} interval {test.low * 100:+.2f} to {test.high * 100:+.2f}"
        rows[0][2] = f"{gain}; p = {test.p:.4g} ({test.test}), {test.fixed} fixed, {test.broken} broken"
        rows.append([decision.opponent, f"{decision.opponent_accuracy:.2%}", ""])
    return table(["on held-out rows", "mean score", "gain"], rows)


def _model(inputs: CardInputs) -> str:
    model, base = inputs.model, inputs.model.base
    rows = [["method", inputs.method], ["problem", inputs.problem], ["weights", model.uri]]
    rows += [["SHA-256 of the weights", model.digest], ["kind", "adapter" if base else "full weights"]]
    if base is not None:
        rows += [["base", str(base.facts.get("name", base.uri))], ["SHA-256 of the base", base.digest]]
    return table(["", "value"], rows)


def _data(inputs: CardInputs) -> str:
    named = {"training rows": inputs.data.rows, "held-out rows": inputs.held_out}
    rows = [[name, str(ref.rows), ref.digest, ref.uri] for name, ref in named.items()]
    rows[0][0] += f" (of them new: {inputs.new_rows})"
    return table(["data", "rows", "SHA-256", "where"], rows)


def _lineage(ancestors: list[Ancestor]) -> str:
    rows = [[one.number, f"{one.accuracy:.2%}", str(one.rows), one.digest] for one in ancestors]
    return table(["champion before it", "mean score then", "training rows", "SHA-256"], rows)


def _limits(inputs: CardInputs) -> str:
    decision, limits = inputs.decision, list[str]()
    if decision.test is None:
        limits.append("It was promoted without a comparison: nothing says that it is better than its base.")
    elif decision.test.rows < 200:
        limits.append(f"The comparison rests on {decision.test.rows} rows; its interval is wide.")
    limits += [
        "The held-out rows are those of one problem and one source; other texts may be answered worse.",
        "The same held-out rows decide again and again: each promotion fits them a little, so that the score of "
        "the latest champion is likely a little too good.",
        "Nothing here measures harm, bias, or what the model says outside its problem.",
    ]
    return "\n".join(f"- {limit}" for limit in limits)


STAGE = Stage("model_card", run, CardConfig, CardInputs, Card)
