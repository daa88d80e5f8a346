"""A run that waits for a person in Prefect: suspended with a form, and woken when somebody answered or time is over.

A suspended run has no process. Answered, it is started anew, finds the answer and goes on; Prefect's own time limit
would end it as failed, and nobody would record the rejection, so an automation starts it anew at the deadline as well.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from tasks.promotion.approval import Answer, Question

_LEFT = ["Resuming", "Scheduled", "Pending", "Running", "Cancelling", "Cancelled", "Failed", "Crashed"]


def can_suspend() -> bool:
    """Whether the run around this call was started from a deployment: no other can be started anew by Prefect."""
    from prefect.runtime import deployment

    return deployment.id is not None


def read_answer(number: str, question: Question) -> Answer | None:
    """What a person filled into the form of this question; None without."""
    from prefect.input import keyset_from_base_key, read_flow_run_input

    given: Any = read_flow_run_input(keyset_from_base_key(f"suspended-{_key(number, question)}")["response"])
    if not given:
        return None
    return Answer(
        approved=given["answer"] == "approve",
        reason=given.get("reason", ""),
        by=given.get("by", ""),
        parent=question.parent,
    )


def suspend(number: str, question: Question, text: str) -> None:
    """End this process and leave the run suspended, with a form that shows `text`; raises Prefect's Pause.

    Returns when the run was suspended with this question before and started anew without an answer.
    """
    from prefect import suspend_flow_run

    key = _key(number, question)
    if key in _suspended_before():
        return
    _wake_at(question.until)
    suspend_flow_run(wait_for_input=_form().with_initial_data(description=text), key=key)


def resume(flow_run_id: str, answer: Answer) -> None:
    """Let a run that is suspended on this server go on with an answer; one that is not, or not here, is left alone."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:
            return
        if run.state is not None and run.state.is_paused():
            given = {"answer": "approve" if answer.approved else "reject"}
            client.resume_flow_run(run.id, run_input=given | {"reason": answer.reason, "by": answer.by})


def _suspended_before() -> set[str]:
    """The keys that this run was suspended with."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run.id)).empirical_policy.pause_keys or set()


def _wake_at(until: datetime) -> None:
    """Let the server start this run anew at `until` if it is suspended still."""
    from prefect.automations import Automation
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.runtime import flow_run

    resource = f"prefect.flow-run.{flow_run.id}"
    seconds = (until - datetime.now(UTC)).total_seconds()
    forget_waking()
    Automation(
        name=_automation(),
        description="Starts a run anew whose candidate nobody approved or rejected in time.",
        trigger=EventTrigger(
            match={"prefect.resource.id": resource},
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.Suspended"},
            expect={f"prefect.flow-run.{name}" for name in _LEFT},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=max(1.0, seconds)),
        ),
        actions=[ChangeFlowRunState(state="SCHEDULED", name="Resuming", message="Nobody answered in time")],
    ).create()


def forget_waking() -> None:
    """Remove the automation of this run, if there is one."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for automation in client.read_automations_by_name(_automation()):
            client.delete_automation(automation.id)


def _automation() -> str:
    from prefect.runtime import flow_run

    return f"approval deadline of {flow_run.id}"


def _key(number: str, question: Question) -> str:
    return f"approve-{number}-{question.parent or 'first'}"


def _form() -> Any:
    from prefect.input import RunInput

    class Approval(RunInput):
        """May the candidate become champion?"""

        answer: Literal["approve", "reject"] = Field(description="Whether the candidate becomes champion.")
        reason: str = Field("", max_length=2000, description="Why; kept with the version.")
        by: str = Field("", max_length=200, description="Who decides.")

    return Approval
