"""References: what passes between stages. Small JSON values; weights and rows stay in the store."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Reference(BaseModel):
    """Where an artifact is and what its bytes hash to.

    `uri` is a folder or file path, or an fsspec address (`s3://…`). `digest` is the SHA-256 of the content and
    independent of where it lies: two references with one digest are interchangeable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    digest: str
    facts: dict[str, Any] = Field(default_factory=dict)
    """Small figures worth showing (parameters, mean length); never part of an identity."""


class ModelRef(Reference):
    """A model folder: full weights, or an adapter with `base` naming the full weights beneath it."""

    base: "ModelRef | None" = None


class DatasetRef(Reference):
    """A JSON-lines file of examples."""

    rows: int
