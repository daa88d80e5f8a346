"""Which stages of a flow need memory on a device, and how much: read off the flow's configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tasks.base_model import ModelConfig
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.generators.load import EngineConfig
from tasks.plan.architecture import Architecture
from tasks.plan.beside_vllm import beside_vllm
from tasks.plan.generating import scoring, writing
from tasks.plan.known_models import architecture_of
from tasks.plan.memory import Machine, Memory
from tasks.plan.policy_training import Reward, policy_training
from tasks.plan.trainers import fine_tuning, reward_training
from tasks.plan.work import longest_answer


@dataclass(frozen=True)
class StagePlan:
    """A stage, and what it holds at its fullest moment."""

    name: str
    memory: Memory
    kind: str
    """What can be changed to make it smaller: `fine-tune`, `reward`, `ppo`, `generate`, `score` or `merge`."""
    shape: Architecture
    """Of the model that it passes through."""
    part: str = ""
    """Where its settings stand in the flow's configuration."""
    devices: int = 1
    """Over which a stage that writes is spread by its engine's settings, each holding that memory."""


def planned_model(config: Any) -> tuple[str, ModelConfig]:
    """The field and the model that a flow makes better. Raises UserError for a flow that trains none itself."""
    for field in ("policy", "student"):
        model = getattr(config, field, None)
        if model is not None and hasattr(config, "training") and hasattr(config, "evaluation"):
            return f"{field}.model", model
    raise UserError(
        "this flow trains no model itself, so there is nothing to plan",
        mend="plan the method that it runs: llm2llm, rest or perl",
    )


def plan_stages(config: Config, machine: Machine, *, prompt: int) -> list[StagePlan]:
    """The stages of a flow that load a model, in their order; `prompt` is the longest prompt in tokens.

    Raises UserError for a model whose shape is not known.
    """
    return list(_stages(config, machine, prompt))


def _stages(config: Any, machine: Machine, prompt: int) -> Iterator[StagePlan]:
    field, model = planned_model(config)
    shape = architecture_of(model, field=field)
    alone = replace(machine, processes=1)  # stages that do not train get one process
    learned = hasattr(config, "reward") and config.reward.by == "model" and not config.reward.model
    perl = hasattr(config, "ppo")
    if getattr(config, "sft", True):
        trained = fine_tuning(shape, config.training, machine)
        yield StagePlan("fine-tune", trained, "fine-tune", shape, "training")
    if perl and config.sft:
        merged = Memory(
            "the adapter is merged", weights=alone.bytes_of(config.roles.precision) * shape.parameters()
        )
        yield StagePlan("merge", merged, "merge", shape)
    rewarding = (
        architecture_of(config.reward_base, field="reward_base.model") if learned and not perl else shape
    )
    if learned:
        trained = reward_training(rewarding, config.reward_model, machine)
        yield StagePlan("reward model", trained, "reward", rewarding, "reward_model")
        number = alone.bytes_of(config.reward.precision)
        static = Memory(weights=number * rewarding.body_parameters())
        scored = scoring(
            rewarding,
            static,
            number,
            rows=config.reward.batch_size,
            length=prompt + longest_answer(config, config.evaluation),
        )
        yield StagePlan("reward of answers", scored, "score", rewarding, "reward")
    yield from _answering(config, shape, alone, prompt)
    if perl:
        ppo = policy_training(shape, config.ppo, config.roles, _reward(config), machine, prompt=prompt)
        number, length = machine.bytes_of(config.roles.precision), prompt + config.ppo.max_new_tokens
        ppo = beside_vllm(ppo, config.rollouts, shape, number, length=length)
        yield StagePlan("ppo", ppo, "ppo", shape, "ppo")


def _answering(config: Any, shape: Architecture, machine: Machine, prompt: int) -> Iterator[StagePlan]:
    """The stages in which the model itself, or a local teacher, writes. A server's memory is not this machine's."""
    evaluation = config.evaluation
    written = _writing(
        "evaluate",
        "evaluation.engine",
        evaluation.engine,
        shape,
        machine,
        prompt,
        longest_answer(config, evaluation),
    )
    if written:
        yield written
    if hasattr(config, "grow"):
        new = longest_answer(config, config.grow)
        grown = _writing("grow", "grow.engine", config.grow.engine, shape, machine, prompt, new)
        if grown:
            yield grown
    teacher = getattr(config, "teacher", None)
    if teacher is not None and teacher.engine.engine != "openai":
        other = architecture_of(teacher.weights(), field="teacher.model")
        new = config.augment.max_new_tokens
        taught = _writing("teacher", "teacher.engine", teacher.engine, other, machine, prompt, new)
        if taught:
            yield taught


def _writing(
    name: str, part: str, engine: EngineConfig, shape: Architecture, machine: Machine, prompt: int, new: int
) -> StagePlan | None:
    if engine.engine == "openai":
        return None
    number = machine.bytes_of(engine.precision)
    devices = engine.tensor_parallel if engine.engine == "vllm" else 1
    static = Memory(weights=number * shape.parameters() / devices)
    memory = writing(shape, static, number, rows=engine.batch_size, prompt=prompt, new=new, devices=devices)
    return StagePlan(name, memory, "generate", shape, part, devices)


def _reward(config: Any) -> Reward:
    """Who plays the reward model beside the policy (`tasks.ppo.stage`): an adapter where it was trained on one."""
    if config.reward.by != "model":
        return Reward("verifier")
    if not config.reward.model and "full" not in (config.roles.method, config.reward_model.method):
        return Reward("adapter", config.reward_model.adapter)
    return Reward("model")


def separate_models(config: Any, machine: Machine, *, prompt: int) -> StagePlan | None:
    """PPO of the same settings with a model for every role, as the last PPO of TRL laid them out: the value function
    trained whole, the reward model whole, and the reference a model of its own where the policy is trained whole.

    None for a flow without PPO. What is kept of activations and logits is counted as for ours.
    """
    if not hasattr(config, "ppo"):
        return None
    field, model = planned_model(config)
    roles = config.roles.model_copy(update={"value": "model", "value_adapter": None})
    reward = Reward("model") if config.reward.by == "model" else Reward("verifier")
    shape = architecture_of(model, field=field)
    memory = policy_training(shape, config.ppo, roles, reward, machine, prompt=prompt)
    return StagePlan("ppo, four models", memory, "ppo", shape, "ppo")
