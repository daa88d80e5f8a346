"""Which devices hold a flow's stages, and what to change where one does not."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.config import Config
from tasks.plan.memory import GB, Machine, needed
from tasks.plan.remedies import Change, changed, remedies
from tasks.plan.stages import StagePlan, plan_stages

DEVICES = (24, 40, 80, 141)
"""GPUs by their memory in GB: L4 and RTX 4090, A100, A100 and H100, H200."""


@dataclass(frozen=True)
class Verdict:
    """Whether a device holds every stage, each by itself."""

    gigabytes: float
    too_large: tuple[str, ...]
    """Stages that it does not hold as they are."""
    flags: tuple[str, ...]
    """With these it holds them,"""
    hopeless: tuple[str, ...]
    """but for those that nothing known here makes small enough."""

    @property
    def fits(self) -> bool:
        """Whether it holds all of them as they are."""
        return not self.too_large


def judge(config: Config, machine: Machine, gigabytes: float, *, prompt: int) -> Verdict:
    """What a device of so many GB (10^9 bytes) holds of a flow, its reserve taken off."""
    stages = [
        stage
        for stage in plan_stages(config, machine, prompt=prompt)
        if needed(stage.memory.total, machine) > gigabytes * GB
    ]
    flags: dict[str, str] = {}
    hopeless = []
    for stage in stages:
        found = _mend(config, machine, stage, gigabytes, prompt)
        if found is None:
            hopeless.append(stage.name)
            continue
        for change in found:
            flags |= {field: f"--{field}={_written(value)}" for field, value in change.items()}
    names = tuple(stage.name for stage in stages)
    return Verdict(gigabytes, names, tuple(flags.values()), tuple(hopeless))


def _mend(
    config: Config, machine: Machine, stage: StagePlan, gigabytes: float, prompt: int
) -> list[Change] | None:
    """The changes with which the device holds the stage, without those that are not needed; None if none are enough."""

    def fits(changes: Sequence[Change]) -> bool:
        tried = config
        for change in changes:
            tried = changed(tried, change)
        (again,) = (one for one in plan_stages(tried, machine, prompt=prompt) if one.name == stage.name)
        return needed(again.memory.total, machine) <= gigabytes * GB

    candidates = remedies(config, stage)
    enough = next((at for at in range(1, len(candidates) + 1) if fits(candidates[:at])), None)
    if enough is None:
        return None
    kept = list(candidates[:enough])
    for change in candidates[: enough - 1]:
        without = [one for one in kept if one is not change]
        if fits(without):
            kept = without
    return kept


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
