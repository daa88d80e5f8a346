"""What a flow returns: for a program one JSON object, for a person a table and the next commands."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from tasks.core.references import ModelRef

if TYPE_CHECKING:
    from rich.table import Table


class FlowResult(BaseModel):
    """What a flow returns, and prints as the last line of the command."""

    flow: str
    status: str
    stopped: str = ""
    """Why the loop ended before its last iteration."""
    flow_run_id: str
    mlflow_run_id: str
    iterations: list[dict[str, float]]
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Figures of what the loop was compared with, by name."""
    model: ModelRef | None
    places: dict[str, str] = Field(default_factory=dict)
    """Where a person looks next: model, data, report, and the commands that open the two UIs."""

    def summary(self) -> str:
        """The iterations as a table, why the loop ended, and where everything is."""
        from rich.console import Console

        console = Console(width=120, highlight=False)
        with console.capture() as captured:
            console.print(iteration_table(self.iterations))
            for name, figures in self.baselines.items():
                console.print(
                    f"Compared with {name}: {_accuracy(figures)}, {figures['train/steps']:.0f} steps"
                )
            if self.stopped:
                console.print(f"Stopped early: {self.stopped}.")
            for name, place in self.places.items():
                console.print(f"{name:>9}  {place}", soft_wrap=True, markup=False)
        return captured.get()


def iteration_table(iterations: list[dict[str, float]]) -> "Table":
    """Rows trained on, wrong, generated, kept and test accuracy, an iteration a row; rewards where there are any, and
    the share that is right in full where the accuracy counts rows in part."""
    from rich.table import Table

    rewarded = any("reward/test" in figures for figures in iterations)
    columns = {
        "rows trained on": "data/train_rows",
        "prompts without" if rewarded else "wrong": "data/wrong",
        "generated": "data/generated",
        "kept": "data/kept",
        "steps": "train/steps",
    }
    rewards = {"reward of samples": "reward/mean", "on test rows": "reward/test"} if rewarded else {}
    in_full = {"right in full": "eval/exact"} if any(_counts_in_part(one) for one in iterations) else {}
    table = Table("iteration", *columns, *rewards, "test accuracy", *in_full)
    for number, figures in enumerate(iterations, start=1):
        counts = (f"{figures.get(name, 0):.0f}" for name in columns.values())
        means = (f"{figures.get(name, 0):.3f}" for name in rewards.values())
        shares = (f"{figures[name]:.1%}" for name in in_full.values())
        table.add_row(str(number), *counts, *means, _accuracy(figures), *shares)
    return table


def _counts_in_part(figures: dict[str, float]) -> bool:
    return figures.get("eval/exact", figures["eval/accuracy"]) != figures["eval/accuracy"]


def _accuracy(figures: dict[str, float]) -> str:
    """The accuracy with its interval."""
    accuracy, low, high = (figures[f"eval/accuracy{end}"] for end in ("", "_low", "_high"))
    return f"{accuracy:.1%} ({low:.1%} to {high:.1%})"
