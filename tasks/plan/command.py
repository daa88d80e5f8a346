"""Plan: what memory each stage of a flow needs, and which GPUs hold it (`plan FLOW --config F.yaml`)."""

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tasks.core.command_line import read_config
from tasks.core.config import Config
from tasks.core.credentials import take_credentials
from tasks.core.errors import UserError
from tasks.plan.architecture import Architecture
from tasks.plan.devices import DEVICES, Verdict, judge
from tasks.plan.estimate import Estimate, estimates
from tasks.plan.known_models import architecture_of
from tasks.plan.memory import CONTEXT, CPU, FRAGMENTS, GB, GPU, Machine, needed
from tasks.plan.sharing import launched
from tasks.plan.speed import SPEEDS, calibrated
from tasks.plan.stages import StagePlan, plan_stages, planned_model, separate_models
from tasks.plan.storage import Stored, stored
from tasks.plan.table import (
    ASSUMED,
    comparison,
    estimate_line,
    host_lines,
    stage_table,
    stored_line,
    traffic_line,
    verdict_line,
)
from tasks.plan.traffic import Traffic, traffic
from tasks.plan.work import Amounts, Work, work_of

USAGE = """python -m flows plan [FLOW] [--config F.yaml] [--field=value …]
The memory of each of a flow's stages, which GPUs hold it, and what the whole run takes, before anything is loaded.
FLOW may be left out where only one takes the configuration.
  --device=80          only this GPU (GB), or `cpu`: this machine's memory, with weights in float32
  --prompt_tokens=512  the longest prompt; left out, that of training (training.max_length)
  --model=NAME         the model, as in architectures.yaml, a hub id or a folder; several, with commas, are compared
  --json               no table, only the JSON line
What the hours are counted from, where the configuration does not say it:
  --rows=1000 --test_rows=500 --pairs=1000   training rows, test rows, pairs of preferences
  --row_tokens=512     mean tokens of a row; left out, half of training.max_length
  --failing=0.3 --kept=0.5   share of the rows that a student fails, share of the samples that a filter keeps
  --calibrate          hours of this machine too, whose speed is measured for some seconds"""


@dataclass
class Asked:
    """What the command itself was asked for, and what it passes on to the flow's configuration."""

    device: str = ""
    prompt: int = 0
    models: list[str] = field(default_factory=list)
    only_json: bool = False
    calibrate: bool = False
    amounts: Amounts = field(default_factory=Amounts)
    rest: list[str] = field(default_factory=list)


def run_plan(
    flows: Collection[str], configuration: Callable[[str], type[Config]], arguments: Sequence[str]
) -> int:
    """Print the plan of one of the `flows`, whose `configuration` is asked for by name: a table on standard error, one
    JSON line on standard output. Returns the exit code; raises UserError for a mistake."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    named = not arguments[0].startswith("-")
    asked = _asked(arguments[1:] if named else arguments)
    name = arguments[0] if named else _flow_of(flows, configuration, asked.rest)
    if name not in flows:
        raise UserError(f"there is no flow {name} to plan", mend=f"there are: {', '.join(flows)}")
    config: Any = read_config(configuration(name), f"python -m flows plan {name}", asked.rest)
    take_credentials(config.credentials)
    planned_model(config)
    machine = CPU if asked.device == "cpu" else GPU
    machine = launched(machine, config.launch)
    prompt = asked.prompt or config.training.max_length
    devices = _devices(asked.device)
    variants = [_with_model(config, model) for model in asked.models] or [config]
    plans = [_plan(name, variant, machine, devices, prompt, asked) for variant in variants]
    if not asked.only_json:
        print(_text(plans, machine, prompt), file=sys.stderr, flush=True)
    found = [plan.as_json() for plan in plans]
    print(json.dumps(found[0] if len(found) == 1 else {"flow": name, "plans": found}), flush=True)
    return 0


def _flow_of(
    flows: Collection[str], configuration: Callable[[str], type[Config]], arguments: Sequence[str]
) -> str:
    """The only flow with a plan that takes these arguments. Raises UserError where there is none or more than one."""
    found = []
    for flow in flows:
        try:
            planned_model(read_config(configuration(flow), f"python -m flows plan {flow}", arguments))
        except UserError as error:
            if error.field == "--config":  # the file itself cannot be read
                raise
            continue
        found.append(flow)
    if len(found) == 1:
        return found[0]
    raise UserError(
        "the flow to plan has to be named",
        mend=f"python -m flows plan FLOW …: this fits {' and '.join(found)}"
        if found
        else "python -m flows plan FLOW …, with the same arguments, says what does not fit that flow; flows are: "
        + ", ".join(flows),
    )


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
    work: Mapping[str, Work]
    stored: Mapping[str, Stored]
    traffic: Traffic
    estimates: list[Estimate]

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
            "work": {stage: asdict(work) for stage, work in self.work.items()},
            "stored": {stage: asdict(stored) for stage, stored in self.stored.items()},
            "traffic": asdict(self.traffic) | {"total": self.traffic.total},
            "estimates": [asdict(one) | {"total_hours": one.total} for one in self.estimates],
        }


def _as_json(stage: StagePlan) -> dict[str, Any]:
    parts = {
        name: size if isinstance(size, str) else round(size) for name, size in asdict(stage.memory).items()
    }
    total = stage.memory.total
    return {
        "stage": stage.name,
        **parts,
        "bytes": round(total),
        "bytes_of_gpu": round(needed(total)),
        "devices": stage.devices,
    }


def _plan(
    name: str, config: Any, machine: Machine, devices: Sequence[float], prompt: int, asked: Asked
) -> Plan:
    where, model = planned_model(config)
    shape = architecture_of(model, field=where)
    longest = prompt + (config.ppo.max_new_tokens if hasattr(config, "ppo") else 0)
    if shape.context is not None and longest > shape.context:
        raise UserError(
            f"{longest} tokens do not fit into the context of {model.model}, {shape.context}",
            field="prompt_tokens",
            mend="give the longest prompt that there is",
        )
    stages = plan_stages(config, machine, prompt=prompt)
    work = work_of(config, asked.amounts)
    found = [
        estimates(config, machine, size, SPEEDS[size], work, prompt=prompt)
        for size in devices
        if size in SPEEDS
    ]
    if asked.calibrate:
        found.append(_estimate_here(config, shape, work, prompt))
    return Plan(
        name,
        model.model,
        shape.parameters(),
        prompt,
        stages,
        separate_models(config, machine, prompt=prompt),
        [judge(config, machine, size, prompt=prompt) for size in devices],
        {stage.name: work[stage.name] for stage in stages if stage.name in work},
        {stage.name: stored(config, stage, machine) for stage in stages},
        traffic(config, stages, machine, asked.amounts),
        found,
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
    lines = [words, stage_table(plan.stages, plan.separate), *host_lines(plan.stages, machine.processes)]
    if machine.fused:
        lines.append(
            f"GB are 10^9 bytes. A device has to have {FRAGMENTS:.0%} more (what an allocator cannot use) and "
            f"{CONTEXT / GB:g} GB (CUDA):"
        )
        lines += map(verdict_line, plan.verdicts)
    if plan.estimates:
        lines += [
            "",
            "The whole run, a stage after the other, in the cheapest layout that holds its trainings:",
        ]
        lines += map(estimate_line, plan.estimates)
        lines.append(ASSUMED)
    lines += [stored_line(plan.stored.values()), traffic_line(plan.traffic)]
    return "\n".join(lines)


def _asked(arguments: Sequence[str]) -> Asked:
    asked = Asked()
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--json" and not value:
            asked.only_json = True
        elif name == "--calibrate" and not value:
            asked.calibrate = True
        elif name.removeprefix("--") in asdict(asked.amounts):
            asked.amounts = _amount(asked.amounts, name.removeprefix("--"), value)
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


def _amount(amounts: Amounts, name: str, value: str) -> Amounts:
    share = isinstance(getattr(amounts, name), float)
    try:
        number = float(value) if share else int(value)
    except ValueError:
        number = -1
    if not 0 <= number <= (1 if share else 10**12):
        raise UserError(
            f"{value!r} is no {'share between 0 and 1' if share else 'number'}",
            field=f"--{name}",
            mend=f"--{name}={'0.5' if share else '1000'}",
        )
    changes: Any = {name: number}
    return replace(amounts, **changes)


def _estimate_here(config: Any, shape: Architecture, work: Mapping[str, Work], prompt: int) -> Estimate:
    """The run on this machine's GPUs or, where it has none, in its memory and in the numbers that are trained there."""
    import psutil
    import torch

    if torch.cuda.is_available():
        machine, most = GPU, torch.cuda.device_count()
        size = float(torch.cuda.get_device_properties(0).total_memory)
    else:
        machine, most, size = CPU, 1, float(psutil.virtual_memory().total)
    speed = calibrated(shape, machine.bytes_of(config.training.precision))
    machine = launched(machine, config.launch)
    return estimates(config, machine, size / GB, speed, work, prompt=prompt, most=most)


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
