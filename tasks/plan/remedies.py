"""Settings with which a stage takes less memory, in the order of what they cost."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from tasks.core.config import Config
from tasks.plan.accepted import is_accepted
from tasks.plan.stages import StagePlan

C = TypeVar("C", bound=Config)
Change = Mapping[str, Any]
"""Fields of a flow's configuration, with dots, and their new values: they only go together."""


def remedies(config: Config, stage: StagePlan) -> list[Change]:
    """What can be changed for a stage: a smaller batch first (the result stays the same), then recomputed activations,
    adapters instead of all weights, weights in 4 bits. Nothing that the flow would refuse where it accepts what is set
    now, as 4-bit weights with DeepSpeed."""
    launch: Any = setting(config, "launch")
    refused = not is_accepted(config, launch.total)
    return [
        change
        for change in _candidates(config, stage)
        if any(setting(config, field) != value for field, value in change.items())
        and (refused or is_accepted(changed(config, change), launch.total))
    ]


def changed(config: C, change: Change) -> C:
    """A copy of the configuration with other values."""
    for field, value in change.items():
        config = _with(config, field.split("."), value)
    return config


def setting(config: Any, field: str) -> Any:
    """The value of a field, whose name has dots."""
    for name in field.split("."):
        config = getattr(config, name)
    return config


def _candidates(config: Config, stage: StagePlan) -> Iterator[Change]:
    part = stage.part
    if stage.kind in ("generate", "score"):
        yield from ({f"{part}.batch_size": rows} for rows in _fewer(setting(config, f"{part}.batch_size")))
    if stage.kind in ("fine-tune", "reward"):
        rows, accumulated = (
            setting(config, f"{part}.{name}") for name in ("batch_size", "gradient_accumulation")
        )
        for fewer in _fewer(rows):
            yield {f"{part}.batch_size": fewer, f"{part}.gradient_accumulation": accumulated * rows // fewer}
        yield {f"{part}.gradient_checkpointing": True}
        if setting(config, f"{part}.method") == "full":
            yield {f"{part}.method": "lora"}
        yield {f"{part}.method": "qlora"}
    if stage.kind == "ppo":
        yield from (
            {"ppo.micro_batch_size": rows} for rows in _fewer(setting(config, "ppo.micro_batch_size"))
        )
        yield {"roles.gradient_checkpointing": True}
        yield {"roles.method": "lora"}
        if setting(config, "roles.value") == "model":
            yield {"roles.value": "adapter"}
        yield {"reward_model.method": "lora"}
        yield {"roles.method": "qlora"}


def _fewer(rows: int) -> Iterator[int]:
    """A half of the rows, a half of those, down to one."""
    while rows > 1:
        rows //= 2
        yield rows


def _with(config: Any, path: list[str], value: Any) -> Any:
    first, *rest = path
    new = _with(getattr(config, first), rest, value) if rest else value
    return config.model_copy(update={first: new})
