"""kill -9 of a policy's training in the rollout, in the update and while it saves: the next attempt ends as if nothing
had been.

The stage here is the real one, which stops for good at the moment that a file in its work folder names.
"""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from safetensors.torch import load_file

from tasks.core.errors import StageFailed
from tasks.core.examples import make_example, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.references import ModelRef
from tasks.core.stage import Report, Stage, compute
from tasks.core.store import Store, fetch
from tasks.ppo import stage as policy_training
from tasks.ppo.config import PPOConfig
from tasks.ppo.stage import PolicyTrainingInputs, PolicyTrainingResult
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.rewards.config import RewardConfig
from tests.unit.reward_pairs import train_reward

CONFIG = PolicyTrainingConfig(
    ppo=PPOConfig(
        steps=5,
        batch_size=4,
        minibatch_size=2,
        epochs=2,
        max_new_tokens=5,
        policy_learning_rate=1e-2,
        value_learning_rate=1e-2,
        target_kl=0.0,
        kl_controller="adaptive",
        normalise_scores="standardise",
    ),
    reward=RewardConfig(by="model"),
    checkpoint_steps=2,
)

MOMENTS = {
    "rollout": ("tasks.ppo.sampling.decode", 4),  # the fourth batch, when its first response is there
    "update": ("tasks.ppo.optimisation.reduce_gradients", 3 * 4 + 3),  # after two of its four optimizer steps
    "saving": (
        "tasks.ppo.checkpoints.save_trained_weights",
        2,
    ),  # before the optimizer is written beside them
    "result": ("tasks.ppo.stage.save_policy", 1),
}
"""A function at whose so-many-th call, when it has done something, the training stops."""


def run(
    config: PolicyTrainingConfig, inputs: PolicyTrainingInputs, out: Path, report: Report
) -> PolicyTrainingResult:
    """The stage; it stands still at the moment that the file `hold` beside `out` names."""
    hold = out.parent / "hold"
    with ExitStack() as patches:
        if hold.exists():
            name, call = MOMENTS[hold.read_text()]
            module, _, function = name.rpartition(".")
            real = getattr(__import__(module, fromlist=[function]), function)
            patches.enter_context(patch(name, _standing_still(real, call, out.parent / "held")))
        if config.ppo.deepspeed:  # the way of its own to communicate on one machine takes a minute to compile
            import deepspeed

            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        return policy_training.run(config, inputs, out, report)


def _standing_still(real: Callable[..., Any], call: int, mark: Path) -> Callable[..., Any]:
    calls = 0

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(*arguments, **keywords)
        if calls == call:
            if hasattr(found, "__next__"):
                next(found)
            (mark.with_name(f"held-{os.environ.get('RANK', 0)}")).touch()
            time.sleep(600)
        return found

    return wrapped


STAGE = Stage(
    "policy_training",
    run,
    PolicyTrainingConfig,
    PolicyTrainingInputs,
    PolicyTrainingResult,
    own_process=True,
    distributed=True,
)


def inputs_of(folder: Path, model: ModelRef) -> PolicyTrainingInputs:
    """Prompts, and a reward adapter on `model`."""
    rows = [
        make_example(f"What is number {number} in Berlin?", "you are very welcome") for number in range(6)
    ]
    return PolicyTrainingInputs(
        model=model,
        prompts=write_rows(folder / "prompts.jsonl", rows),
        problem=ProblemConfig(name="exact_match"),
        reward_model=train_reward(folder / "reward", model).model,
    )


def kill_at(
    moment: str,
    config: PolicyTrainingConfig,
    inputs: PolicyTrainingInputs,
    store: Store,
    processes: int = 1,
    ready: Callable[[], object] = lambda: True,
) -> Path:
    """Begin the training in processes of its own, kill one of them at `moment`, not before all is `ready`; the work
    folder it leaves."""
    work = store.work_folder(STAGE.name, STAGE.key(config, inputs))
    work.mkdir(parents=True, exist_ok=True)
    (work / "hold").write_text(moment)
    settings = LaunchConfig(processes=processes)
    with ThreadPoolExecutor(1) as thread:
        attempt = thread.submit(compute, STAGE, config, inputs, store, settings, lambda event: None)
        last = work / f"held-{processes - 1}"
        while not (last.exists() and ready()):
            assert not attempt.done(), attempt.result()
            time.sleep(0.01)
        groups = (work / "groups.txt").read_text().splitlines()
        assert len(groups) == processes
        os.killpg(int(groups[-1].split()[1]), signal.SIGKILL)
        with pytest.raises(StageFailed):
            attempt.result(timeout=120)
    (work / "hold").unlink()
    return work


def finish(
    config: PolicyTrainingConfig, inputs: PolicyTrainingInputs, store: Store, processes: int = 1
) -> tuple[PolicyTrainingResult, list[int]]:
    """Train to the end; the result, and the steps that were taken here."""
    events: list[dict[str, Any]] = []
    manifest = compute(STAGE, config, inputs, store, LaunchConfig(processes=processes), events.append)
    steps = [event["step"] for event in events if "step" in event]
    return PolicyTrainingResult.model_validate(manifest.result), steps


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef) -> PolicyTrainingInputs:
    return inputs_of(tmp_path_factory.mktemp("inputs"), tiny_ref)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, inputs: PolicyTrainingInputs
) -> PolicyTrainingResult:
    result, steps = finish(CONFIG, inputs, Store(str(tmp_path_factory.mktemp("undisturbed"))))
    assert steps == [1, 2, 3, 4, 5]
    weights = load_file(fetch(result.model) / "adapter_model.safetensors")
    assert max(float(part.abs().max()) for name, part in weights.items() if "lora_B" in name) > 1e-2
    return result


@pytest.mark.parametrize(
    ("moment", "left", "steps"),
    [
        ("rollout", {"step-2"}, [3, 4, 5]),
        ("update", {"step-2"}, [3, 4, 5]),
        ("saving", {"step-2", "torn-4"}, [3, 4, 5]),
        ("result", {"step-4"}, [5]),
    ],
)
def test_killed_it_goes_on_and_ends_with_the_same_weights(moment, left, steps, inputs, undisturbed, tmp_path):
    store = Store(str(tmp_path))
    work = kill_at(moment, CONFIG, inputs, store)
    assert {path.name for path in (work / "checkpoints").iterdir()} == left
    result, taken = finish(CONFIG, inputs, store)
    assert taken == steps
    assert result.model.digest == undisturbed.model.digest
    assert result.history.digest == undisturbed.history.digest
    assert result.figures == undisturbed.figures
    assert not work.exists()
