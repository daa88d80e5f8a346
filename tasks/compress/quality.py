"""Stage: drop the pairs that a teacher changed most, or whose words could not be aligned; keep them for inspection."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.compress.drawing import draw_histogram
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.examples import read_records, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage


class QualityConfig(Config):
    """Which of the teacher's texts are learned from."""

    variation_percent: float = Field(5.0, ge=0.0, lt=100.0)
    """Drop this share of the pairs, those with most words that the original lacks (published: 5)."""
    gap_percent: float = Field(10.0, ge=0.0, lt=100.0)
    """Of those that are left, drop this share, those with the largest alignment gap (published: 10)."""


class QualityInputs(BaseModel):
    """The labelled pairs, shard by shard, and what was of no use."""

    pairs: list[DatasetRef]
    unusable: list[DatasetRef]


class QualityResult(BaseModel):
    """The pairs that are learned from and tested on."""

    train: DatasetRef
    test: DatasetRef
    dropped: DatasetRef
    """The others with their `reason`: also those whose answer was of no use."""
    counts: dict[str, int]
    """Pairs kept, and dropped by reason."""
    variation_limit: float
    gap_limit: float
    kept_share: float
    """The share of the words that the teacher kept, over all pairs that are left."""
    plots: list[str]

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        dropped = {
            f"quality/{reason.replace(' ', '_')}": float(count)
            for reason, count in self.counts.items()
            if reason != "kept"
        }
        return dropped | {
            "data/train_rows": float(self.train.rows),
            "data/kept": float(self.counts["kept"]),
            "quality/variation_limit": self.variation_limit,
            "quality/gap_limit": self.gap_limit,
            "quality/kept_share": self.kept_share,
        }


def limit(values: Sequence[float], percent: float) -> float:
    """The value above which `percent` of the values lie, rounded down, or fewer where several are equal; infinity for
    no value."""
    dropped = int(len(values) * percent / 100 + 1e-9)
    return sorted(values)[len(values) - 1 - dropped] if values else float("inf")


def run(config: QualityConfig, inputs: QualityInputs, out: Path, report: Report) -> QualityResult:
    """Write train.jsonl, test.jsonl, dropped.jsonl and a histogram of each measure.

    Ties stay: where no pair varies, none is dropped for it. Raises UserError when nothing is left to learn from.
    """
    rows = [row for ref in inputs.pairs for row in read_records(ref)]
    dropped = [row for ref in inputs.unusable for row in read_records(ref)]
    most_varied = limit([row["variation"] for row in rows], config.variation_percent)
    faithful = [row for row in rows if row["variation"] <= most_varied]
    widest = limit([row["gap"] for row in faithful], config.gap_percent)
    kept = [row for row in faithful if row["gap"] <= widest]
    dropped += [row | {"reason": "variation"} for row in rows if row["variation"] > most_varied]
    dropped += [row | {"reason": "alignment gap"} for row in faithful if row["gap"] > widest]
    split: dict[bool, list[dict[str, Any]]] = {
        held_out: [row for row in kept if row["held_out"] == held_out] for held_out in (False, True)
    }
    counts = Counter(row["reason"] for row in dropped) + Counter(kept=len(kept))
    if not split[False] or not split[True]:
        told = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        raise UserError(
            f"of the teacher's answers too few are of use: {told}",
            field="teacher",
            mend="look at the dropped rows; take a teacher that follows the instruction, or more texts",
        )
    plots = []
    for name, values, most in (
        ("variation", [row["variation"] for row in rows], most_varied),
        ("gap", [row["gap"] for row in faithful], widest),
    ):
        path = out / f"{name}.png"
        title = {"variation": "variation rate", "gap": "alignment gap"}[name]
        path.write_bytes(draw_histogram(values, most, title))
        plots.append(str(path))
    labels = "".join(row["labels"] for row in kept)
    return QualityResult(
        train=write_rows(out / "train.jsonl", split[False]),
        test=write_rows(out / "test.jsonl", split[True]),
        dropped=write_rows(out / "dropped.jsonl", dropped),
        counts={"kept": len(kept)} | dict(counts),
        variation_limit=most_varied,
        gap_limit=widest,
        kept_share=labels.count("1") / len(labels),
        plots=plots,
    )


STAGE = Stage("compression_quality", run, QualityConfig, QualityInputs, QualityResult)
