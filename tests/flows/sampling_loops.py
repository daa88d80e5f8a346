"""ReST on a tiny model that knows nothing: a function that likes short answers is the reward, seconds per run."""

from pathlib import Path

from tests.flows.loops import Loop

VERIFIER = '''"""Answers are worth the more, the fewer letters they have."""


def brevity(prompt: str, completion: str, example: dict) -> float:
    return max(0.0, 1.0 - len(completion) / 40)
'''


class SamplingLoop(Loop):
    """A folder in which ReST runs; `verifiers.py` with the reward lies in it, and there the command runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        (self.folder / "verifiers.py").write_text(VERIFIER)
        self.flow, self.cwd = "rest", self.folder

    def defaults(self) -> dict[str, str]:
        """Two iterations of two Improve steps."""
        return {
            "data.train": str(self.folder / "train.jsonl"),
            "data.validation": str(self.folder / "test.jsonl"),
            "data.test": str(self.folder / "test.jsonl"),
            "data.problem": "exact_match",
            "data.input": "text",
            "data.target": "label",
            "policy.model": str(self.model),
            "store": str(self.store),
            "iterations": "2",
            "equal_steps": "false",
            "reward.by": "function",
            "reward.function": "verifiers:brevity",
            "grow.samples": "4",
            "grow.max_new_tokens": "12",
            "grow.shard_prompts": "4",
            "grow.shard_samples": "2",
            "improve.levels": "[0.0,0.2]",
            "improve.stop_on_reward": "false",
            "evaluation.max_new_tokens": "12",
            "training.max_steps": "2",
            "training.batch_size": "4",
            "training.learning_rate": "1e-3",
        }


def new_sampling_loop(folder: Path, model: Path, api: str) -> SamplingLoop:
    """A loop without a teacher."""
    return SamplingLoop(folder, model, teacher="", api=api)
