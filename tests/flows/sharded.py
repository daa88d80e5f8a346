"""A flow that evaluates the tiny model on a test set, whole or in shards, wherever its configuration says."""

from pathlib import Path
from typing import Any

from prefect import flow

from tasks import evaluate
from tasks.core.examples import make_example, write_rows
from tasks.core.fan_out import FanOutConfig
from tasks.core.flow_run import FlowConfig, check_run, open_run
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.tracking import TrackingConfig
from tasks.evaluate import EvaluationConfig, EvaluationInputs, EvaluationResult
from tasks.problems.base import ProblemConfig

PROBLEM = ProblemConfig(name="classification", labels=("music", "weather"))
ROWS = [
    make_example(f"{'play' if number % 3 else 'rain'} {'la ' * (number % 7)}{number}", label)
    for number in range(11)
    for label in ("music", "weather")
]


def write_test(folder: Path, rows: int = len(ROWS)) -> DatasetRef:
    """The first of the rows as a data set."""
    return write_rows(folder / "test.jsonl", ROWS[:rows])


def evaluated(
    folder: Path, model: ModelRef, splits: dict[str, DatasetRef], **fan_out: Any
) -> EvaluationResult:
    """What the evaluation gives, with its store in `folder`."""
    config = FlowConfig(
        store=str(folder / "store"),
        tracking=TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
        fan_out=FanOutConfig(**fan_out),
    )

    @flow(name="evaluated")
    def run() -> EvaluationResult:
        check_run(config)
        with open_run("evaluated", config) as run:
            inputs = EvaluationInputs(model=model, splits=splits, problem=PROBLEM)
            settings = EvaluationConfig(max_new_tokens=8, restricted=False, resamples=100)
            return run.stage(evaluate.STAGE, settings, inputs, label="evaluate")

    return run()
