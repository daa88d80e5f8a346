"""On how many devices, and shared in what way, a flow's trainings fit; and what is cheapest."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tasks.core.config import Config
from tasks.core.launching.zero import LAYOUTS
from tasks.plan.accepted import TRAININGS, check_trainings, is_accepted, shared_parts
from tasks.plan.memory import GB, Machine, needed
from tasks.plan.remedies import changed, setting
from tasks.plan.stages import StagePlan, plan_stages

DEVICES = (1, 2, 4, 8, 16, 32, 64)
OF_A_MACHINE = 8
"""Devices that a machine has at most; more are several machines."""


@dataclass(frozen=True)
class Layout:
    """A number of devices, and how they share."""

    devices: int
    deepspeed: str
    """ZeRO's name; empty where every device has all of it."""

    @property
    def machines(self) -> int:
        """Over how many machines the devices are."""
        return -(-self.devices // OF_A_MACHINE)

    def flags(self, parts: list[str]) -> list[str]:
        """The flags that ask for it, `parts` being where trainings have their settings."""
        shared = [f"--{part}.deepspeed={self.deepspeed}" for part in parts] if self.deepspeed else []
        here = min(self.devices, OF_A_MACHINE)
        launched = [f"--launch.processes={here}"] if self.devices > 1 else []
        if self.machines > 1:
            launched.append(f"--launch.nodes={self.machines}")
        return launched + shared


def layouts(
    config: Config, machine: Machine, gigabytes: float, *, prompt: int, most: int = DEVICES[-1]
) -> list[Layout]:
    """The layouts in which every training fits on at `most` so many devices of so many GB (10^9 bytes), fewest devices
    first, and of those the one that sends least between devices. Stages that one device does alone are not asked.

    Raises UserError for settings that the flow refuses in any layout."""
    found = []
    for layout in _candidates(config, most):
        stages = plan_stages(
            in_layout(config, layout), replace(machine, processes=layout.devices), prompt=prompt
        )
        if all(needed(stage.memory.total, machine) <= gigabytes * GB for stage in trainings(stages)):
            found.append(layout)
    return found


def trainings(stages: list[StagePlan]) -> list[StagePlan]:
    """Those that several devices can share."""
    return [stage for stage in stages if stage.kind in TRAININGS]


def in_layout(config: Any, layout: Layout) -> Any:
    """The configuration with all trainings in that layout."""
    change = {f"{part}.deepspeed": layout.deepspeed for part in shared_parts(config)}
    return changed(config, change)


def _candidates(config: Any, most: int) -> Iterator[Layout]:
    most = min(most, *(setting(config, f"{part}.batch_size") for part in shared_parts(config)))
    check_trainings(
        in_layout(config, Layout(1, "")), 1
    )  # what one process cannot follow is no matter of the layout
    for devices in DEVICES:
        if devices > most:
            return
        names = ["", *LAYOUTS] if devices > 1 else [""]
        for layout in (Layout(devices, name) for name in names):
            if is_accepted(in_layout(config, layout), devices):
                yield layout
