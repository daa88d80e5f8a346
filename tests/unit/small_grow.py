"""Grow for its tests: five questions, a reward for short answers, shards in a folder or in a store, without Prefect."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from tasks.core.digests import folder_digest
from tasks.core.examples import Example, make_example, read_examples, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.models import end_of_turn, load_tokenizer, render
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import compute, is_whole
from tasks.core.store import Store
from tasks.grow import stage
from tasks.grow.config import DrawConfig, GrowConfig
from tasks.grow.growing import Grown, Growth
from tasks.grow.stage import GrowInputs
from tasks.problems.base import ProblemConfig, Score
from tasks.problems.exact_match import ExactMatch
from tasks.problems.load import load_problem
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tests.tiny_model import build_tiny_model


class Brevity(ExactMatch):
    """The shorter an answer, the better."""

    def score(self, example: Example, completion: str) -> Score:
        return Score(value=1 / (1 + len(completion)), answer=completion)


PROBLEM = ProblemConfig(name=f"{__name__}:Brevity")
PROMPTS = [make_example(f"Which number comes after {n}?", str(n + 1)) for n in (1, 7, 12, 30, 41)]
LONG = [make_example(f"{n} " * 200, "?") for n in (3, 4)]
DRAW = DrawConfig(temperature=1.0, max_new_tokens=6, seed=5)
CONTEXT = 128


def reference(folder: Path) -> ModelRef:
    """The model in a folder."""
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


def short_context_model(folder: Path) -> ModelRef:
    """A policy whose context the prompts of LONG do not fit in."""
    return reference(build_tiny_model(folder, context=CONTEXT))


def silent_model(folder: Path, tiny_model: Path) -> ModelRef:
    """A policy that answers everything with the end-of-sequence token.

    Its layers add nothing, so that the last token's embedding alone, the same after every prompt, decides.
    """
    import torch

    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if "o_proj" in name or "down_proj" in name:
            value.zero_()
    tokenizer = load_tokenizer(reference(tiny_model))
    prompt = render(tokenizer, load_problem(PROBLEM).prompt(PROMPTS[0]))
    last = weights["model.embed_tokens.weight"][prompt[-1]]
    head = torch.zeros_like(weights["lm_head.weight"])
    head[end_of_turn(tokenizer)] = last * 1e4
    save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    return reference(folder)


class Shards:
    """Draws shards in a folder, without a store."""

    def __init__(self, folder: Path, model: ModelRef) -> None:
        self.folder, self.model, self.count = folder, model, 0

    def draw(
        self,
        prompts: Sequence[Example] = PROMPTS,
        first=0,
        count=8,
        model=None,
        config=DRAW,
        keep_empty=False,
        **changes,
    ):
        self.count += 1
        folder = self.folder / str(self.count)
        inputs = GrowInputs(
            model=model or self.model,
            prompts=write_rows(folder / "prompts.jsonl", prompts),
            problem=PROBLEM,
            first=first,
            count=count,
            keep_empty=keep_empty,
        )
        config = config.model_copy(update=changes)
        return stage.run(config, inputs, folder / "out", lambda event: None)


def by_prompt(*references: DatasetRef) -> dict[str, list[str]]:
    """The completions of each prompt, by its id, in their order."""
    answers: dict[str, list[str]] = {}
    for row in (row for ref in references for row in read_examples(ref)):
        answers.setdefault(row.parent or "", []).append(row.completion or "")
    return answers


class Killed(BaseException):
    """As Ctrl-C in the middle of a shard."""


class StoreRun:
    """Runs stages in this process with a store; `computed` has those that were not found there, and their inputs."""

    iteration = 1

    def __init__(self, folder: Path) -> None:
        self.store, self.computed, self.killed_at = Store(str(folder / "store")), {}, "nowhere"

    def stages(self, stage, config, inputs, *, labels, whole="", at_once=1, each=None):
        results = []
        for one, label in zip(inputs, labels, strict=True):
            results.append(self.stage(stage, config, one, label=label))
            if each:
                each(len(results) - 1, results[-1])
        return results

    def has(self, stage, config, inputs) -> bool:
        return is_whole(self.store, stage, stage.key(config, inputs))

    def stage(self, stage, config, inputs, *, label="", training=False):
        def report(event: dict) -> None:
            if label == self.killed_at:
                raise Killed
            if "seconds" in event:
                self.computed[label or stage.name] = inputs

        here = replace(stage, own_process=False)
        manifest = compute(here, config, inputs, self.store, LaunchConfig(), report)
        return stage.result.model_validate(manifest.result)


class Grower:
    """A policy that is sampled with a store."""

    def __init__(self, folder: Path, model: ModelRef) -> None:
        self.run, self.model, self.folder = StoreRun(folder), model, folder

    def growth(
        self,
        prompts: Sequence[Example] = PROMPTS,
        reward: RewardConfig = RewardConfig(),  # noqa: B008 - frozen
        reward_model: ModelRef | None = None,
        **changes,
    ) -> Growth:
        settings = {
            "samples": 4,
            "shard_samples": 4,
            "shard_prompts": 3,
            "temperature": 1.0,
            "max_new_tokens": 6,
        }
        rows = write_rows(self.folder / "prompts.jsonl", prompts)
        config = GrowConfig(**settings | changes)
        scoring = Scoring(self.run, reward, PROBLEM, reward_model)
        return Growth(self.run, config, PROBLEM, rows, scoring)

    def grow(
        self, prompts: Sequence[Example] = PROMPTS, model=None, *, iteration: int = 1, **changes
    ) -> Grown:
        self.run.computed.clear()
        return self.growth(prompts, **changes).grow(model or self.model, iteration)

    def ranges(self) -> list[tuple[int, int]]:
        """Of the shards that were drawn: the number of the first sample, and how many, each pair once."""
        drawn = [self.run.computed[label] for label in self.drawn()]
        return sorted({(inputs.first, inputs.count) for inputs in drawn})

    def drawn(self) -> list[str]:
        """The shards that were drawn, not found."""
        return [label for label in self.run.computed if label.startswith("grow")]
