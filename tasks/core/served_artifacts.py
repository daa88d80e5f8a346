"""Artifacts that MLflow's server took, read and written without the server.

`make up` lets MLflow's server keep the artifacts of its experiments. A command without MLFLOW_TRACKING_URI uses the
same database as a file, in which such artifacts lie at `mlflow-artifacts:`, addresses that only a server can be asked
for. The server keeps them in a folder beside that file.
"""

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

FOLDER = "mlartifacts"
"""Beside the database, where server and commands keep artifacts."""
SQLITE = "sqlite:///"
"""What the address of a database in a file begins with."""
_SCHEME = "mlflow-artifacts"


@cache
def reach_served_artifacts() -> None:
    """Let MLflow find the artifacts of a server's experiments in its folder, wherever the database is a file."""
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    def open_repository(
        artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> Any:
        if not tracking_uri or not tracking_uri.startswith(SQLITE):
            return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)
        return LocalArtifactRepository(
            folder_of(artifact_uri, tracking_uri).as_uri(), tracking_uri, registry_uri
        )

    registry.register(_SCHEME, open_repository)


def folder_of(artifact_uri: str, tracking_uri: str) -> Path:
    """Where a server beside that SQLite file keeps what is at `artifact_uri`.

    Raises ValueError for an address that leads out of its folder.
    """
    place = (Path(tracking_uri.removeprefix(SQLITE)).parent / FOLDER).resolve()
    found = (place / unquote(urlparse(artifact_uri).path).lstrip("/")).resolve()
    if not found.is_relative_to(place):
        raise ValueError(f"{artifact_uri} leads out of {place}")
    return found
