"""Approve: the answer of a person to a candidate that waits for one, or, without an answer, what is asked.

question  = the version of the registered model that waits            `retrain` asked, with promotion.approval.ask
answer    = show | approve | reject, with the reason                  the first answer counts
champion  = candidate if approved                                     void if the champion changed since it was compared
"""

from typing import Literal

from prefect import flow
from pydantic import Field

from tasks.core.artifacts import log
from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig, check_run, open_run
from tasks.promotion.answering import give_answer, waiting_version
from tasks.promotion.approval import Answer
from tasks.promotion.concluding import conclude, read_question
from tasks.promotion.registry import ModelRegistry, check_name
from tasks.promotion.result import PromotionResult, outcome
from tasks.promotion.suspension import resume


class ApproveConfig(FlowConfig):
    """Answer for a candidate that waits for a person's approval."""

    model_name: str = Field("loopwright", min_length=1, max_length=200)
    """The registered model in MLflow."""
    version: str = Field("", pattern=r"^\d*$")
    """The version that is answered for; empty is the only one that waits."""
    answer: Literal["show", "approve", "reject"] = "show"
    """`show` prints the comparison and changes nothing."""
    reason: str = Field("", max_length=2000)
    """Why; a rejection needs one. It is kept with the version."""
    by: str = Field("", max_length=200)
    """Who decides."""


def check(config: ApproveConfig) -> None:
    """Raise UserError for what can be known to be wrong before anything is changed."""
    check_run(config)
    check_name(config.model_name)
    if config.answer == "reject" and not config.reason.strip():
        raise UserError("a rejection needs its reason", field="reason", mend='--reason="too terse"')


@flow(name="approve")
def approve(config: ApproveConfig = ApproveConfig()) -> PromotionResult:  # noqa: B008 - the model is frozen
    """Answer for a candidate that waits for a person's approval."""
    check(config)
    with open_run("approve", config) as run:
        registry = ModelRegistry(run.tracking, config.model_name)
        version, question = waiting_version(registry, config.version)
        decision = None
        if config.answer == "show":
            words = read_question(run.tracking, question)
        else:
            answer = Answer(
                approved=config.answer == "approve",
                reason=config.reason,
                by=config.by,
                parent=question.parent,
            )
            decision = conclude(run, registry, give_answer(registry, version, question, answer))
            words = outcome(version, decision, config.model_name)
            resume(version.tags["prefect.flow_run_id"], decision.answer or answer)
        log(words)
        run.tracking.tag(run.run_id, "decision", words[:5000])
        return PromotionResult(
            flow="approve",
            status="completed" if decision else "waiting",
            flow_run_id=run.flow_run_id,
            mlflow_run_id=run.run_id,
            iterations=[],
            metrics=decision.metrics() if decision else {},
            model=version.model,
            places={"model": version.model.uri},
            decision=words,
            version=version.number,
        )


CONFIG, FLOW = ApproveConfig, approve
