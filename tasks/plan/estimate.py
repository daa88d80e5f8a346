"""Hours and dollars of a whole run on one kind of device, in the cheapest layout that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.plan.accepted import TRAININGS, shared_parts
from tasks.plan.generating import rows_in_flight
from tasks.plan.layouts import DEVICES, Layout, in_layout, layouts
from tasks.plan.memory import GB, Machine, needed
from tasks.plan.policy_training import SAMPLED
from tasks.plan.remedies import setting
from tasks.plan.sharing import rows_of_device
from tasks.plan.speed import Pass, Speed, seconds
from tasks.plan.stages import StagePlan, plan_stages
from tasks.plan.work import Work, longest_answer

HOUR = 3600.0
_ALONE = ("score", "merge")
"""Kinds of stages that one process does, with the whole model on one device."""


@dataclass(frozen=True)
class Estimate:
    """A run on devices of one kind."""

    device: str
    gigabytes: float
    layout: Layout | None
    """None where the trainings fit in no layout that is known."""
    flags: tuple[str, ...]
    """With which the layout is asked for."""
    spread: Mapping[str, int]
    """Stages that only read and write, and are told to be spread or too large for one device: over how many their
    weights are, by a server or by vLLM."""
    hours: Mapping[str, float]
    """Of every stage, all its calls together."""
    dollars: float
    host: float = 0.0
    """Bytes of main memory beside all devices together, where trainings are offloaded."""
    too_large: tuple[str, ...] = ()
    """Stages that one device does alone and does not hold."""

    @property
    def total(self) -> float:
        """Hours of all stages, one after the other."""
        return sum(self.hours.values())


def estimates(
    config: Any,
    machine: Machine,
    gigabytes: float,
    speed: Speed,
    work: Mapping[str, Work],
    *,
    prompt: int,
    most: int = DEVICES[-1],
) -> Estimate:
    """The cheapest run on devices of so many GB, at `most` so many of them: of the layouts in which every training fits
    the one whose hours cost least, the first of equal ones."""
    found = [
        estimate_in(layout, config, machine, gigabytes, speed, work, prompt=prompt)
        for layout in layouts(config, machine, gigabytes, prompt=prompt, most=most)
    ]
    if not found:
        return Estimate(speed.name, gigabytes, None, (), {}, {}, 0.0)
    # Where nothing is let by the hour, the fewest device hours.
    return min(found, key=lambda one: (one.dollars or one.total * _devices(one), _devices(one)))


def estimate_in(
    layout: Layout,
    config: Any,
    machine: Machine,
    gigabytes: float,
    speed: Speed,
    work: Mapping[str, Work],
    *,
    prompt: int,
) -> Estimate:
    """The run in one layout, in which its trainings fit."""
    config = in_layout(config, layout)
    machine = replace(machine, processes=layout.devices)
    hours: dict[str, float] = {}
    spread: dict[str, int] = {}
    too_large: list[str] = []
    dollars = 0.0
    stages = plan_stages(config, machine, prompt=prompt)
    host = layout.devices * max((stage.memory.host for stage in stages), default=0.0)
    for stage in stages:
        devices = 1 if stage.kind in _ALONE else layout.devices
        if stage.kind in _ALONE:
            if needed(stage.memory.total, machine) > gigabytes * GB:
                too_large.append(stage.name)
        elif stage.kind not in TRAININGS:
            devices = stage.devices * _over(stage, machine, gigabytes)
            if devices > 1:
                spread[stage.name] = devices
        how = _pass(config, stage, machine, layout, prompt)
        # Spread weights are read by all devices at once, each its part.
        wide = replace(speed, flops=speed.flops * devices, bandwidth=speed.bandwidth * devices)
        took = seconds(
            stage.shape, work.get(stage.name, Work()), how, speed if stage.kind in TRAININGS else wide
        )
        hours[stage.name] = took / HOUR
        dollars += took / HOUR * speed.price * max(devices, layout.devices)
    flags = tuple(layout.flags(shared_parts(config)))
    return Estimate(speed.name, gigabytes, layout, flags, spread, hours, dollars, host, tuple(too_large))


def _over(stage: StagePlan, machine: Machine, gigabytes: float) -> int:
    """Over how many times as many devices a stage's memory has to be spread, a power of two."""
    devices = 1
    while needed(stage.memory.total / devices, machine) > gigabytes * GB:
        devices *= 2
    return devices


def _pass(config: Any, stage: StagePlan, machine: Machine, layout: Layout, prompt: int) -> Pass:
    training = (
        config.roles
        if stage.kind == "ppo"
        else getattr(config, stage.part, None)
        if stage.kind in TRAININGS
        else None
    )
    rows = 1
    if stage.kind == "generate":
        rows = rows_in_flight(
            setting(config, stage.part).batch_size, prompt, longest_answer(config, config.evaluation)
        )
    elif stage.kind == "ppo":
        rows = rows_in_flight(
            min(SAMPLED, rows_of_device(config.ppo.batch_size, machine)), prompt, config.ppo.max_new_tokens
        )
    zero = str(setting(config, f"{stage.part}.deepspeed")) if stage.kind in TRAININGS else ""
    return Pass(
        full=training is not None and training.method == "full",
        checkpointing=training is not None and training.gradient_checkpointing,
        rows=rows,
        number=machine.number,
        devices=machine.processes if stage.kind in TRAININGS else 1,
        batch_tokens=_batch_tokens(config, stage, prompt),
        gathered=zero.startswith("zero3"),
        from_host=zero.endswith("offload"),
        machines=layout.machines if stage.kind in TRAININGS else 1,
    )


def _batch_tokens(config: Any, stage: StagePlan, prompt: int) -> float:
    """Tokens that all devices together take forward and backward at once."""
    if stage.kind == "ppo":
        return float(config.ppo.minibatch_size * (prompt + config.ppo.max_new_tokens))
    if stage.kind not in TRAININGS:
        return 1.0
    training = getattr(config, stage.part)
    return float(training.batch_size * training.max_length * (2 if stage.kind == "reward" else 1))


def _devices(estimate: Estimate) -> int:
    return estimate.layout.devices if estimate.layout else 0
