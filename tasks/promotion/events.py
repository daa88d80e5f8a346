"""What is told to Prefect when a model becomes champion, so that automations can act on it."""

from typing import Literal
from uuid import NAMESPACE_URL, uuid5

from tasks.promotion.registered_version import RegisteredVersion


def tell(
    outcome: Literal["promoted", "refused", "rolled-back"],
    name: str,
    version: RegisteredVersion,
    *,
    reason: str,
    by: str,
) -> None:
    """Send the event `loopwright.model.OUTCOME` of the registered model `name`; `by` is the MLflow run that decided.

    Sent again, by a run that finishes what a killed one began, it is the same event: its id is made of its content.
    """
    from prefect.events import emit_event

    event = f"loopwright.model.{outcome}"
    emit_event(
        event,
        resource={"prefect.resource.id": f"loopwright.model.{name}", "prefect.resource.name": name},
        payload={
            "version": version.number,
            "reason": reason,
            "model": version.model.uri,
            "mlflow_run_id": by,
        },
        id=uuid5(NAMESPACE_URL, f"{event}/{name}/{version.number}/{version.model.digest}/{by}"),
    )
