"""A reward model on the HH pairs: LoRA on the attention projections (PERL) against full fine-tuning, in one run.

    python -m tests.benchmarks.reward [--train N] [--test N] [--max-length N] [--batch-size N] [--epochs X]

Both arms begin at SmolLM2-135M and see the same pairs in the same batches, each in a process of its own. Compared are
the accuracy on held-out pairs, the most memory the process held while it trained, and the median seconds of a step.
Every arm is a cached stage beneath build/bench, so that an interrupted benchmark goes on. It takes about 30 minutes on
2 quiet cores.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tasks import base_model
from tasks.base_model import BaseModelResult, ModelConfig
from tasks.core.config import Config
from tasks.core.examples import read_records
from tasks.core.launching.launch import LaunchConfig
from tasks.core.progress import Progress
from tasks.core.references import ModelRef
from tasks.core.stage import Stage, compute
from tasks.core.store import Store
from tasks.evaluate import bootstrap_interval
from tasks.reward_model import preferences, stage
from tasks.reward_model.config import PreferenceConfig, RewardTrainingConfig
from tasks.reward_model.preferences import PreparedPreferences
from tasks.reward_model.stage import RewardTrainingInputs, RewardTrainingResult
from tasks.sft.config import AdapterConfig

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "hh" / "pairs.jsonl"
STORE = Store(str(ROOT / "build" / "bench" / "reward"))
ATTENTION = AdapterConfig(rank=16, alpha=32, modules="q_proj,k_proj,v_proj,o_proj")
ARMS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "learning_rate": 5e-4, "adapter": ATTENTION},
    "full": {"method": "full", "learning_rate": 2e-5},
}
TARGET = 1.0


def result_of(stage: Stage[Any, Any, Any], config: Config, inputs: Any, label: str) -> Any:
    """A stage's result, from the store or computed now, with its progress on standard error."""
    progress = Progress(label)
    found = compute(stage, config, inputs, STORE, LaunchConfig(), progress)
    progress.close()
    return stage.result.model_validate(found.result)


def train_reward_models(
    *, train: int = 800, test: int = 300, max_length: int = 128, batch_size: int = 4, epochs: float = 1.0
) -> tuple[ModelRef, dict[str, RewardTrainingResult]]:
    """The base model and the reward model of every arm, from the store or trained now."""
    pairs = PreferenceConfig(train=str(DATA), test_fraction=0.25, rows=train, test_rows=test, faulty="drop")
    shared = {"epochs": epochs, "batch_size": batch_size, "max_length": max_length}
    base: BaseModelResult = result_of(
        base_model.STAGE, ModelConfig(), base_model.locate(ModelConfig()), "base model"
    )
    data: PreparedPreferences = result_of(preferences.STAGE, pairs, preferences.inputs(pairs), "pairs")
    inputs = RewardTrainingInputs(model=base.model, train=data.train, test=data.test)
    results: dict[str, RewardTrainingResult] = {}
    for name, settings in ARMS.items():
        config = RewardTrainingConfig(**shared | settings, too_long="drop", checkpoint_steps=10)
        results[name] = result_of(stage.STAGE, config, inputs, name)
    return base.model, results


def right(result: RewardTrainingResult) -> list[float]:
    """Of every held-out pair 1 if its better answer got the higher reward, 1/2 for a tie."""
    assert result.rewards is not None
    margins = [record["chosen"] - record["rejected"] for record in read_records(result.rewards)]
    return [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]


def main() -> None:
    """Run what is missing, print a row per arm, the paired difference, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=1.0)
    chosen = parser.parse_args()
    if not DATA.is_file():
        sys.exit(f"the data are not there: {DATA} (set LOOPWRIGHT_SHARED_DATA)")
    _, results = train_reward_models(
        train=chosen.train,
        test=chosen.test,
        max_length=chosen.max_length,
        batch_size=chosen.batch_size,
        epochs=chosen.epochs,
    )
    print(f"{'':6}{'pairs':>7}{'steps':>7}{'accuracy':>10}{'interval':>18}{'GB':>8}{'s/step':>8}")
    for name, result in results.items():
        tested = result.held_out
        assert tested is not None
        interval = f"{tested.low:.1%} to {tested.high:.1%}"
        print(
            f"{name:6}{result.pairs:>7}{result.steps:>7}{tested.accuracy:>10.1%}{interval:>18}"
            f"{result.peak_memory_gb:>8.2f}{result.step_s:>8.2f}"
        )
    lora, full = results["lora"], results["full"]
    gains = [100 * (ours - theirs) for ours, theirs in zip(right(lora), right(full), strict=True)]
    gain = sum(gains) / len(gains)
    low, high = bootstrap_interval(gains, 0.95, 10_000, seed=0)
    memory, seconds = lora.peak_memory_gb / full.peak_memory_gb, lora.step_s / full.step_s
    print(f"LoRA over full: {gain:+.1f} points ({low:+.1f} to {high:+.1f}) on {len(gains)} held-out pairs")
    print(f"LoRA takes {memory:.0%} of the memory and {seconds:.0%} of the time of a step")
    figures = {
        "name": "reward",
        "ratio": memory,
        "target": TARGET,
        "memory_ratio": memory,
        "time_ratio": seconds,
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
    }
    for name, result in results.items():
        figures |= {f"{name}_{key.replace('/', '_')}": value for key, value in result.metrics().items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
