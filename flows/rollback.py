"""Rollback: the champion before this one becomes champion again; a second rollback takes it back.

champion, previous = previous, champion
"""

from prefect import flow
from pydantic import Field

from tasks.core.flow_run import FlowConfig, check_run, open_run
from tasks.promotion.events import tell
from tasks.promotion.registry import ModelRegistry, check_name
from tasks.promotion.result import PromotionResult


class RollbackConfig(FlowConfig):
    """Make the previous champion of a registered model its champion again."""

    model_name: str = Field("loopwright", min_length=1, max_length=200)
    """The registered model in MLflow."""


def check(config: RollbackConfig) -> None:
    """Raise UserError for what can be known to be wrong before anything is changed."""
    check_run(config)
    check_name(config.model_name)


@flow(name="rollback")
def rollback(config: RollbackConfig = RollbackConfig()) -> PromotionResult:  # noqa: B008 - the model is frozen
    """Make the previous champion of a registered model its champion again."""
    check(config)
    with open_run("rollback", config) as run:
        registry = ModelRegistry(run.tracking, config.model_name)
        now, before = registry.rollback()
        registry.tag(before, "rolled_back.by", run.run_id)
        words = f"Version {now.number} is champion again; version {before.number} is previous"
        run.tracking.tag(run.run_id, "decision", words)
        tell("rolled-back", config.model_name, now, reason=words, by=run.run_id)
        return PromotionResult(
            flow="rollback",
            status="completed",
            flow_run_id=run.flow_run_id,
            mlflow_run_id=run.run_id,
            iterations=[],
            metrics={},
            model=now.model,
            places={"model": now.model.uri},
            decision=words,
            version=now.number,
        )


CONFIG, FLOW = RollbackConfig, rollback
