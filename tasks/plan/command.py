"""Plan: what memory each stage of a flow needs, and which GPUs hold it (`plan FLOW --config F.yaml`)."""

import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tasks.core.command_line import read_config
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.plan.devices import DEVICES, Verdict, judge
from tasks.plan.known_models import architecture_of
from tasks.plan.memory import CONTEXT, CPU, FRAGMENTS, GB, GPU, Machine, needed
from tasks.plan.stages import StagePlan, plan_stages, planned_model, separate_models
from tasks.plan.table import comparison, stage_table, verdict_line

USAGE = """python -m flows plan FLOW [--config F.yaml] [--field=value …]
The memory of each of a flow's stages, and which GPUs hold it, before anything is loaded.
  --device=80          only this GPU (GB), or `cpu`: this machine's memory, with weights in float32
  --prompt_tokens=512  the longest prompt; left out, that of training (training.max_length)
  --model=NAME         the model, as in architectures.yaml, a hub id or a folder; several, with commas, are compared
  --json               no table, only the JSON line"""


@dataclass
class Asked:
    """What the command itself was asked for, and what it passes on to the flow's configuration."""

    device: str = ""
    prompt: int = 0
    models: list[str] = field(default_factory=list)
    only_json: bool = False
    rest: list[str] = field(default_factory=list)


def run_plan(
    flows: Collection[str], configuration: Callable[[str], type[Config]], arguments: Sequence[str]
) -> int:
    """Print the plan of one of the `flows`, whose `configuration` is asked for by name: a table on standard error, one
    JSON line on standard output. Returns the exit code; raises UserError for a mistake."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    name = arguments[0]
    if name not in flows:
        raise UserError(f"there is no flow {name} to plan", mend=f"there are: {', '.join(flows)}")
    asked = _asked(arguments[1:])
    config: Any = read_config(configuration(name), f"python -m flows plan {name}", asked.rest)
    planned_model(config)
    machine = CPU if asked.device == "cpu" else GPU
    machine = replace(machine, processes=config.launch.processes * config.launch.nodes)
    prompt = asked.prompt or config.training.max_length
    devices = _devices(asked.device)
    variants = [_with_model(config, model) for model in asked.models] or [config]
    plans = [_plan(name, variant, machine, devices, prompt) for variant in variants]
    if not asked.only_json:
        print(_text(plans, machine, prompt), file=sys.stderr, flush=True)
    found = [plan.as_json() for plan in plans]
    print(json.dumps(found[0] if len(found) == 1 else {"flow": name, "plans": found}), flush=True)
    return 0


@dataclass(frozen=True)
class Plan:
    """A flow's plan for one model."""

    flow: str
    model: str
    parameters: int
    prompt: int
    stages: list[StagePlan]
    separate: StagePlan | None
    verdicts: list[Verdict]

    def as_json(self) -> dict[str, Any]:
        """Bytes by stage and part, and what each device holds."""
        return {
            "flow": self.flow,
            "model": self.model,
            "parameters": self.parameters,
            "prompt_tokens": self.prompt,
            "stages": [_as_json(stage) for stage in self.stages],
            "separate_models": _as_json(self.separate) if self.separate else None,
            "devices": [asdict(verdict) | {"fits": verdict.fits} for verdict in self.verdicts],
        }


def _as_json(stage: StagePlan) -> dict[str, Any]:
    parts = {
        name: size if isinstance(size, str) else round(size) for name, size in asdict(stage.memory).items()
    }
    total = stage.memory.total
    return {"stage": stage.name, **parts, "bytes": round(total), "bytes_of_gpu": round(needed(total))}


def _plan(name: str, config: Any, machine: Machine, devices: Sequence[float], prompt: int) -> Plan:
    where, model = planned_model(config)
    shape = architecture_of(model, field=where)
    longest = prompt + (config.ppo.max_new_tokens if hasattr(config, "ppo") else 0)
    if shape.context is not None and longest > shape.context:
        raise UserError(
            f"{longest} tokens do not fit into the context of {model.model}, {shape.context}",
            field="prompt_tokens",
            mend="give the longest prompt that there is",
        )
    return Plan(
        name,
        model.model,
        shape.parameters(),
        prompt,
        plan_stages(config, machine, prompt=prompt),
        separate_models(config, machine, prompt=prompt),
        [judge(config, machine, size, prompt=prompt) for size in devices],
    )


def _text(plans: Sequence[Plan], machine: Machine, prompt: int) -> str:
    if len(plans) > 1:
        return comparison([(plan.model, plan.stages, plan.separate) for plan in plans])
    (plan,) = plans
    words = (
        f"{plan.flow} with {plan.model}: {plan.parameters:,} parameters, prompts of {prompt} tokens at most"
    )
    if machine.processes > 1:
        words += f", on each of {machine.processes} devices"
    lines = [words, stage_table(plan.stages, plan.separate)]
    if machine.fused:
        lines.append(
            f"GB are 10^9 bytes. A device has to have {FRAGMENTS:.0%} more (what an allocator cannot use) and "
            f"{CONTEXT / GB:g} GB (CUDA):"
        )
        lines += map(verdict_line, plan.verdicts)
    return "\n".join(lines)


def _asked(arguments: Sequence[str]) -> Asked:
    asked = Asked()
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--json" and not value:
            asked.only_json = True
        elif name == "--device":
            asked.device = value
        elif name == "--model":
            asked.models = [model.strip() for model in value.split(",") if model.strip()]
            if not asked.models:
                raise UserError("no model is named", field="--model", mend="--model=llama-3.1-8b")
        elif name == "--prompt_tokens":
            if not value.isdecimal() or not int(value):
                raise UserError(f"{value!r} is no number of tokens", field=name, mend="--prompt_tokens=512")
            asked.prompt = int(value)
        else:
            asked.rest.append(argument)
    return asked


def _devices(device: str) -> list[float]:
    if device == "cpu":
        return []
    if not device:
        return list(DEVICES)
    try:
        size = float(device.removesuffix("GB"))
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise UserError(
            f"{device!r} is no device", field="--device", mend="give its GB (--device=80), or cpu"
        )
    return [size]


def _with_model(config: Any, model: str) -> Any:
    where = planned_model(config)[0].partition(".")[0]
    named = getattr(config, where).model_copy(update={"model": model, "revision": ""})
    return config.model_copy(update={where: named})
