"""A version of a registered model: what its tags say of its weights, and of what was decided about it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import UserError
from tasks.core.references import ModelRef

FIELD = "model_name"
WORK, MODEL, VERDICT, SETTLED, DONE = "work", "model.reference", "verdict", "settled", "done"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of the registered model with its tags."""

    number: str
    tags: Mapping[str, str]
    run_id: str

    @property
    def model(self) -> ModelRef:
        """The weights in the store. Raises UserError when the version was not registered by us."""
        if MODEL not in self.tags:
            raise UserError(
                f"version {self.number} names no weights of a store",
                field=FIELD,
                mend="it was registered by another program: let `retrain` register under a name of its own",
            )
        return ModelRef.model_validate_json(self.tags[MODEL])

    @property
    def promoted(self) -> bool:
        """What was decided about it."""
        return bool(self._verdict.get("promoted"))

    @property
    def settled(self) -> bool:
        """Whether the aliases have followed the decision."""
        return self.tags.get(SETTLED) == "true"

    @property
    def parent(self) -> str:
        """The number of the champion it was compared with; empty for none."""
        return str(self._verdict.get("parent", ""))

    @property
    def _verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.tags.get(VERDICT, "{}"))
        return found


def read_version(entity: Any) -> RegisteredVersion:
    """MLflow's own entity as one of ours."""
    return RegisteredVersion(str(entity.version), dict(entity.tags), str(entity.run_id or ""))


def verdict(*, promoted: bool, parent: str) -> str:
    """The one tag that decides: whether a version is promoted, and in the place of which champion."""
    return json.dumps({"promoted": promoted, "parent": parent})
