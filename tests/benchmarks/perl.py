"""LoRA against full fine-tuning, of the reward model and of the policy (the comparison of PERL, arXiv 2403.10704).

    python -m tests.benchmarks.perl [--steps N] [--batch-size N] [--prompts N] [--test N]

The reward models are those of the benchmark `reward`, which is run first when its stages are not there. Then two
policies learn from the reward of one and the same model (the adapter), from the same prompts in the same batches: one
as an adapter on the base that it shares with its reference, its value function and the reward model, the other with all
weights of a policy and a value model trained, beside a reference and a reward model in full. Either answers held-out
prompts once; compared are the mean reward of these answers, the KL that it cost, the peak memory of the process, and
the median seconds of a step. Needs tens of minutes on 2 quiet cores; stages are cached beneath build/bench.
"""

import argparse
import json
import sys
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from tasks.core.examples import read_examples
from tasks.core.references import DatasetRef
from tasks.data import preparing
from tasks.data.config import DataConfig
from tasks.data.preparing import PreparedData
from tasks.grow import stage as grow
from tasks.grow.config import DrawConfig
from tasks.grow.stage import GrowInputs
from tasks.ppo import stage as policy_training
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.stage import PolicyTrainingInputs, PolicyTrainingResult
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.rewards import stage as rewards
from tasks.rewards.config import RewardConfig
from tasks.rewards.stage import ScoreInputs
from tests.benchmarks.reward import ATTENTION, DATA, ROOT, result_of, train_reward_models

LONGEST_PROMPT = 300
"""Letters: PPO on two cores has no time for long conversations."""
PUBLISHED = "published: PPO's counterpart there at most 27 % less memory, up to 30 % faster (no shared base)"
# The full policy's is the one that spends about as much KL: at 2e-6 it spends a fiftieth and has learned nothing.
RATES: dict[str, dict[str, float]] = {
    "lora": {"policy_learning_rate": 2e-4, "value_learning_rate": 2e-4},
    "full": {"policy_learning_rate": 1.5e-5, "value_learning_rate": 2e-5},
}


def short_rows() -> tuple[str, str]:
    """The addresses of the pairs whose prompts are short, for training and (every fourth) for testing: two files beside
    the benchmark's store."""
    folder = ROOT / "build" / "bench" / "perl"
    folder.mkdir(parents=True, exist_ok=True)
    short = []
    for line in DATA.read_text(encoding="utf-8").splitlines(keepends=True):
        prompt, _, reply = json.loads(line)["chosen"].rpartition("\n\nAssistant:")
        if reply.strip() and len(prompt) <= LONGEST_PROMPT:
            short.append(line)
    parts = {"test": short[::4], "train": [line for place, line in enumerate(short) if place % 4]}
    for name, lines in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(folder / "train.jsonl"), str(folder / "test.jsonl")


def held_out_rewards(inputs: PolicyTrainingInputs, model: Any, test: DatasetRef, label: str) -> list[float]:
    """The reward of one answer of `model` to every test prompt."""
    drawing = DrawConfig(temperature=1.0, max_new_tokens=PPO.max_new_tokens)
    asked = GrowInputs(model=model, prompts=test, problem=inputs.problem, first=0, count=1)
    drawn = result_of(grow.STAGE, drawing, asked, f"{label}: answers").samples
    scoring = ScoreInputs(rows=drawn, problem=inputs.problem, reward_model=inputs.reward_model)
    scored = result_of(rewards.STAGE, RewardConfig(by="model"), scoring, f"{label}: rewards").rows
    return [row.reward for row in read_examples(scored) if row.reward is not None]


PPO = PPOConfig(batch_size=16, minibatch_size=8, micro_batch_size=4, max_new_tokens=24)


def main() -> None:
    """Run what is missing, print a row per arm, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=PPO.batch_size)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--test", type=int, default=150)
    chosen = parser.parse_args()
    if not DATA.is_file():
        sys.exit(f"the data are not there: {DATA} (set LOOPWRIGHT_SHARED_DATA)")
    base, models = train_reward_models()
    train, test = short_rows()
    rows = DataConfig(
        problem="dialogue",
        train=train,
        test=test,
        input="chosen",
        target="chosen",
        seed_rows=chosen.prompts,
        test_rows=chosen.test,
    )
    data: PreparedData = result_of(preparing.STAGE, rows, preparing.inputs(rows), "prompts")
    inputs = PolicyTrainingInputs(
        model=base, prompts=data.train, problem=data.problem, reward_model=models["lora"].model
    )
    policies: dict[str, PolicyTrainingResult] = {}
    for name, rates in RATES.items():
        config = PolicyTrainingConfig(
            ppo=PPO.model_copy(update={"steps": chosen.steps, "batch_size": chosen.batch_size} | rates),
            roles=RolesConfig(method=name, adapter=ATTENTION, value="adapter"),
            reward=RewardConfig(by="model"),
            checkpoint_steps=5,
        )
        policies[name] = result_of(policy_training.STAGE, config, inputs, f"ppo, {name}")
    found = {"start": held_out_rewards(inputs, base, data.test, "start")} | {
        name: held_out_rewards(inputs, policy.model, data.test, name) for name, policy in policies.items()
    }
    errors = {name: stdev(values) / sqrt(len(values)) for name, values in found.items()}
    print(f"{chosen.steps} steps of {chosen.batch_size} responses; {len(found['start'])} held-out prompts")
    print(f"{'':6}{'reward':>9}{'s.e.':>8}{'KL':>8}{'GB':>8}{'s/step':>8}")
    print(f"{'start':6}{fmean(found['start']):>9.3f}{errors['start']:>8.3f}")
    for name, policy in policies.items():
        print(
            f"{name:6}{fmean(found[name]):>9.3f}{errors[name]:>8.3f}{policy.figures['objective/kl']:>8.2f}"
            f"{policy.peak_memory_gb:>8.2f}{policy.step_s:>8.2f}"
        )
    lora, full = policies["lora"], policies["full"]
    memory, seconds = lora.peak_memory_gb / full.peak_memory_gb, lora.step_s / full.step_s
    gap = fmean(found["lora"]) - fmean(found["full"])
    print(f"LoRA takes {memory:.0%} of the memory and {seconds:.0%} of the time of a PPO step")
    print(PUBLISHED)
    print(
        json.dumps(
            {
                "name": "perl",
                "ratio": memory,
                "target": 1.0,
                "time_ratio": seconds,
                "gain": gap,
                "standard_error": errors["full"],
                "deviation": stdev(found["start"]),
            }
            | {f"{name}_reward": fmean(values) for name, values in found.items()}
        )
    )


if __name__ == "__main__":
    main()
