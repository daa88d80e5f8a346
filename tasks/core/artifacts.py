"""What a run shows in Prefect: progress, tables and texts. Without a flow run around it nothing is published."""

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID


def log(text: str) -> None:
    """A line in the log of the Prefect run around this call."""
    from prefect.logging import get_run_logger

    get_run_logger().info(text)


def progress_artifact(key: str, description: str) -> Callable[[float], None]:
    """A function that takes the per cent done and keeps one progress artifact up to date."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact: list[UUID] = []

    def publish(percent: float) -> None:
        if artifact:
            update_progress_artifact(artifact[0], percent)
        else:
            created = create_progress_artifact(percent, key=artifact_key(key), description=description)
            artifact.append(cast(UUID, created))  # called synchronously it is no coroutine

    return publish


def table_artifact(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """A table that Prefect's page shows."""
    from prefect.artifacts import create_table_artifact

    create_table_artifact(table=rows, key=artifact_key(key), description=description)


def markdown_artifact(key: str, text: str, description: str) -> None:
    """A text that Prefect's page shows. `text` is Markdown that we wrote; nothing from data or models goes in."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(markdown=text, key=artifact_key(key), description=description)


def artifact_key(name: str) -> str:
    """A name in the form Prefect wants of a key: lower case, digits, dashes."""
    return "-".join("".join(char if char.isalnum() else " " for char in name.lower()).split())
