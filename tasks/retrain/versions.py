"""Versions of a training set: each holds all rows of those before it and the new ones, and is never changed."""

import hashlib

from pydantic import BaseModel

from tasks.core.examples import read_records
from tasks.core.references import DatasetRef


class DataVersion(BaseModel):
    """One version. `seen` may hold more than `rows`: rows that were tried and left out are no news either."""

    rows: DatasetRef
    """The training rows as examples; their ids hang on their content alone."""
    seen: DatasetRef
    """The ids of all rows that were ever looked at, sorted, one `{"id": …}` a line."""
    train: DatasetRef
    """The rows under the user's own columns, as a method reads its `data.train`."""

    @property
    def digest(self) -> str:
        """SHA-256 of what this version holds."""
        return hashlib.sha256(f"{self.rows.digest} {self.seen.digest}".encode()).hexdigest()

    def ids_seen(self) -> set[str]:
        """The ids of all rows that were ever looked at."""
        return {record["id"] for record in read_records(self.seen)}
