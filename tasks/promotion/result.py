"""What a flow that decides about champions returns."""

import shlex
from collections.abc import Sequence

from pydantic import Field

from tasks.core.flow_result import FlowResult
from tasks.promotion.decision import Decision
from tasks.promotion.registered_version import RegisteredVersion
from tasks.retrain.location import BrokenFile


class PromotionResult(FlowResult):
    """A flow's result, with the decision in words."""

    decision: str
    """What was decided and why."""
    version: str = ""
    """The version of the registered model that it is about."""
    broken: list[BrokenFile] = Field(default_factory=list)
    """Files at the data location that were left out."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Rows of other files that were left out, by reason."""

    def summary(self) -> str:
        """The decision, the files left out, then the method's iterations and where everything is."""
        lines = [f"Left out: {one}" for one in self.broken]
        lines += [f"Left out: {count:,} rows that {why}" for why, count in self.left_out.items() if count]
        places = "".join(f"{name:>9}  {place}\n" for name, place in self.places.items())
        rest = super().summary() if self.iterations else places
        return "\n".join([*lines, self.decision, rest])


Decided = Sequence[tuple[RegisteredVersion, Decision | None]]
"""Versions with what was decided about each; None while a person is still to answer."""


def outcome(version: RegisteredVersion, decision: Decision | None, name: str) -> str:
    """What became of a version of the registered model `name`, as a sentence."""
    if decision is None:
        command = f"python -m flows approve --model_name={shlex.quote(name)}"
        return f"Version {version.number} waits for a person's approval: {command}"
    became = "is champion" if decision.promoted else "was not promoted"
    return f"Version {version.number} {became}; {decision.words}"


def outcomes(decided: Decided, name: str) -> list[str]:
    """What became of other runs' versions, a sentence each."""
    return [
        outcome(*one, name).replace("Version", "Completed: version", 1) if one[1] else outcome(*one, name)
        for one in decided
    ]
