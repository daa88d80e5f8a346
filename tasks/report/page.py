"""The page: one HTML file that needs no other."""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.report import wording
from tasks.report.beginning import Beginning
from tasks.report.cases import Cases
from tasks.report.compare import Changes, Comparison, Difference
from tasks.report.curves import Baseline
from tasks.report.drawing import Curve
from tasks.report.headline import Headline
from tasks.report.lineage import Chains
from tasks.report.policy_section import Policies
from tasks.report.records import IterationRecord
from tasks.report.reward_curves import MOST_HISTOGRAMS
from tasks.report.sample_section import Samples
from tasks.report.samples import REJECTED
from tasks.report.tables import REASONS, ClassChange, FilterCounts, Row
from tasks.report.usage import Usage


@dataclass(frozen=True)
class Compared:
    """A baseline, its accuracy, and how far the last iteration is ahead of it."""

    comparison: Comparison
    baseline: Baseline
    difference: Difference
    fewer_steps: bool
    """The baseline trained for fewer optimizer steps than the last iteration."""


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    title: str
    method: str
    confidence: float
    most_rows: int
    headline: Headline
    beginning: Beginning
    records: list[IterationRecord]
    rows: list[Row]
    headings: dict[str, str]
    """Columns of the iteration table beside the accuracy."""
    compared: list[Compared]
    curves: list[Curve]
    classes: list[ClassChange]
    filter: FilterCounts
    cases: list[Cases]
    fixed: Changes
    broken: Changes
    chains: Chains
    usage: list[Usage]
    errors: list[tuple[str, int]]
    settings: dict[str, Any]
    samples: Samples | None = None
    """Where the loop trained on its policy's own samples."""
    policies: Policies | None = None
    """Where it trained its policy by reinforcement learning."""

    @property
    def taught(self) -> bool:
        """Whether the page speaks of a teacher: always, but for a loop over samples or rewards that had none."""
        asked = any(record.exchanges or record.failures or record.counts for record in self.records)
        return asked or (self.samples is None and self.policies is None)


def render(page: Page) -> str:
    """The page as HTML. Every value is escaped; texts that come from data or models stand in <bdi>, so that
    their direction marks end with them."""
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            page=page,
            reasons=REASONS,
            rejected=REJECTED,
            most_histograms=MOST_HISTOGRAMS,
            span=wording.span,
            p_value=wording.p_value,
        )
    )


def templates(*folders: Path) -> Environment:
    """The templates of this page, and those in other folders, with the words for figures; all values are escaped."""
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "points": wording.points,
        "figure": wording.figure,
        "decimals": wording.decimals,
        "signed": wording.signed,
        "visible": wording.visible,
        "cut": wording.cut,
        "data_uri": _data_uri,
    }
    return environment


def _data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{b64encode(image).decode()}"
