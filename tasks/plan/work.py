"""How many tokens each stage of a whole run trains on, reads and writes: the work behind an estimate of time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.improve import config as improve
from tasks.ppo.group_config import GROUP_RELATIVE
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem


@dataclass(frozen=True)
class Amounts:
    """What cannot be known from a configuration alone. All are the user's to give; the defaults are guesses."""

    rows: int = 1000
    """Training rows (`data.seed_rows` where that is set)."""
    test_rows: int = 500
    """Test rows (`data.test_rows` where that is set)."""
    pairs: int = 1000
    """Preference pairs (`preferences.rows` where that is set)."""
    row_tokens: int = 0
    """Mean tokens of a row, prompt and answer; 0 takes half of `training.max_length`."""
    failing: float = 0.3
    """Share of the seed rows that a student fails, in every iteration."""
    kept: float = 0.5
    """Share of the samples that pass a filter."""


@dataclass(frozen=True)
class Work:
    """Tokens of all calls of one stage together."""

    trained: float = 0.0
    """Through which a loss is propagated backward,"""
    read: float = 0.0
    """prompts, or answers that are rewarded,"""
    written: float = 0.0
    """and generated ones."""

    def __add__(self, other: "Work") -> "Work":
        return Work(self.trained + other.trained, self.read + other.read, self.written + other.written)


def work_of(config: Any, amounts: Amounts) -> dict[str, Work]:
    """The work of every stage of a flow by the stage's name in a plan; `config` is the flow's configuration.

    Every row has `row_tokens` tokens, every answer is as long as it may be.
    """
    kind: Callable[[Any, _Given], dict[str, Work]]
    if hasattr(config, "ppo"):
        kind = _perl
    elif hasattr(config, "grow"):
        kind = _rest
    elif hasattr(config, "augment"):
        kind = _llm2llm
    else:
        kind = _trained_once
    return kind(config, _Given.of(config, amounts))


@dataclass(frozen=True)
class _Given:
    """Amounts, with what the configuration says in the place of guesses."""

    rows: int
    test_rows: int
    pairs: int
    row: int
    answer: int
    failing: float
    kept: float

    @classmethod
    def of(cls, config: Any, amounts: Amounts) -> "_Given":
        data, pairs = getattr(config, "data", None), getattr(config, "preferences", None)
        return cls(
            rows=getattr(data, "seed_rows", 0) or amounts.rows,
            test_rows=getattr(data, "test_rows", 0) or amounts.test_rows,
            pairs=getattr(pairs, "rows", 0) or amounts.pairs,
            row=row_tokens(config, amounts),
            answer=longest_answer(config, config.evaluation),
            failing=amounts.failing,
            kept=amounts.kept,
        )

    def asked(self, rows: float, answer: int | None = None) -> Work:
        """Rows that are read and answered."""
        return Work(read=rows * self.row, written=rows * (answer or self.answer))


def row_tokens(config: Any, amounts: Amounts) -> int:
    """Mean tokens of a row, as given or half of the longest."""
    return int(amounts.row_tokens or config.training.max_length // 2)


def longest_answer(config: Any, settings: Any) -> int:
    """The longest answer in tokens: as set, or what the problem needs."""
    problem = getattr(getattr(config, "data", None), "problem", "")
    return int(settings.max_new_tokens or load_problem(ProblemConfig(name=problem)).max_new_tokens)


def _llm2llm(config: Any, given: _Given) -> dict[str, Work]:
    wanted = given.rows * given.failing * config.augment.rows
    rows = [given.rows + number * wanted for number in range(config.iterations)]
    passes = [*rows, rows[-1]] if config.equal_steps and config.iterations > 1 else rows
    trained = sum(passes) * given.row * config.training.epochs
    tested = config.iterations * (given.rows + given.test_rows)
    requests = (config.iterations - 1) * wanted * config.augment.oversample
    return {
        "fine-tune": Work(trained=trained),
        "evaluate": given.asked(tested),
        "teacher": given.asked(requests, config.augment.max_new_tokens),
    }


def _rest(config: Any, given: _Given) -> dict[str, Work]:
    planned = improve.planned(config.improve, config.method)
    samples = given.rows * config.grow.samples
    answer = longest_answer(config, config.grow)
    kept = samples * given.kept
    if planned.most_per_prompt:
        kept = min(kept, given.rows * planned.most_per_prompt)
    if planned.mix_data == "yes":
        kept += given.rows
    steps = config.iterations * len(planned.levels)
    passes = steps * kept * config.training.epochs
    if config.warm_start:
        passes += given.rows * (config.warm_start_epochs or config.training.epochs)
    if config.equal_steps:
        passes += kept * config.training.epochs
    return {
        "fine-tune": Work(trained=passes * given.row),
        "reward model": _reward_model(config, given),
        "reward of answers": Work(read=config.iterations * samples * (given.row + answer)),
        "evaluate": given.asked((1 + steps) * given.test_rows),
        "grow": given.asked(config.iterations * samples, answer),
    }


def _perl(config: Any, given: _Given) -> dict[str, Work]:
    ppo = config.ppo
    responses = ppo.total_steps() * ppo.batch_size
    tokens = responses * (given.row + ppo.max_new_tokens)
    networks = 1 if config.roles.value == "trunk" or ppo.algorithm in GROUP_RELATIVE else 2
    epochs = (
        1 if ppo.algorithm == "reinforce" else ppo.epochs
    )  # one step on what was sampled with these weights
    forward = 3  # reward, reference and the policy's own log-probabilities
    return {
        "fine-tune": Work(trained=given.rows * given.row * config.training.epochs),
        "reward model": _reward_model(config, given),
        "reward of answers": Work(read=2 * given.test_rows * (given.row + ppo.max_new_tokens)),
        "evaluate": given.asked(2 * given.test_rows),
        "ppo": Work(tokens * epochs * networks, tokens * forward, responses * ppo.max_new_tokens),
    }


def _trained_once(config: Any, given: _Given) -> dict[str, Work]:
    return {
        "fine-tune": Work(trained=given.rows * given.row * config.training.epochs),
        "evaluate": given.asked(2 * given.test_rows),
    }


def _reward_model(config: Any, given: _Given) -> Work:
    training = config.reward_model
    return Work(trained=2 * given.pairs * given.row * training.epochs)
