"""Which of a teacher's rows are kept. The rules stand in the order in which they are applied."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.core.config import Config
from tasks.core.examples import Example
from tasks.filter.contamination import HeldOut
from tasks.filter.duplicates import exact_index, normalise
from tasks.filter.rouge import RougeIndex
from tasks.problems.base import Problem

Rule = Literal["label", "malformed", "length", "contamination", "exact_duplicate", "near_duplicate", "rouge"]
Reason = Literal[Rule, "relabelled", "judged"]


class FilterConfig(Config):
    """What a row written by a teacher has to pass. Only inputs are compared, never targets."""

    rouge: float = Field(0.95, gt=0.0, le=1.0)
    """Reject above this ROUGE-L F1 with a wrong seed row or a kept row of this step. LLM2LLM has 0.95,
    Self-Instruct 0.7; 1 rejects equal rows only."""
    near_duplicate: float = Field(0.95, gt=0.0, le=1.0)
    """Reject above this ROUGE-L F1 with any other training row; 1 rejects equal rows only."""
    contamination: float = Field(0.8, gt=0.0, le=1.0)
    """Reject above this ROUGE-L F1 with a test row; 1 rejects equal rows only. At 0.8 one word may differ in
    six; of the rows people wrote for training it takes 1.4 % in SNIPS and 0.04 % in GSM8K."""
    judged_share: float = Field(0.6, gt=0.0, le=1.0)
    """Where there are judges: of the rows of a class that pass all rules, keep this share, those whose answer the
    judges find likeliest."""
    min_characters: int = Field(1, ge=1)
    """Shortest input and shortest target kept, in characters."""
    max_characters: int = Field(20_000, ge=1)
    """Longest input and longest target kept, in characters."""

    @model_validator(mode="after")
    def _some_length_passes(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters lies above max_characters: every row would be rejected")
        return self


class Rejection(BaseModel):
    """A row that was not kept, and why.

    `against` is the id of the row it repeats, `score` their ROUGE-L F1 (None when they are equal once case,
    punctuation and spaces are disregarded), `detail` the fault of a row that repeats none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    example: Example
    reason: Reason
    against: str | None = None
    score: float | None = None
    detail: str = ""


class FilterResult(BaseModel):
    """The kept rows in the candidates' order, the rejected ones, and the counts: "kept" and every rule."""

    kept: list[Example]
    rejected: list[Rejection]
    counts: dict[str, int]


def filter_examples(
    config: FilterConfig,
    candidates: Sequence[Example],
    *,
    wrong: Sequence[Example],
    kept: Sequence[Example],
    known: Sequence[Example],
    test: Sequence[Example],
    problem: Problem,
) -> FilterResult:
    """Keep or reject every candidate; the first rule that it breaks is its reason.

    `wrong` are the seed rows answered wrongly in this step, `kept` the rows kept in this step so far, `known`
    all training rows (it may hold both), `test` the rows that measure. A kept candidate counts against later
    ones: two calls, the first one's rows handed to the second as `kept`, keep what one call does.
    """
    this_step = [*wrong, *kept]
    ids = {example.id for example in this_step}
    held_out = HeldOut(test, config.contamination)
    exact = exact_index([*known, *this_step])
    # This step's rows belong to the published rule, so that each rule's count says what its name says.
    across_steps = _index(config.near_duplicate, (example for example in known if example.id not in ids))
    within_step = _index(config.rouge, this_step)
    accepted: list[Example] = []
    rejected: list[Rejection] = []
    for candidate in candidates:
        # A classification finds an unknown label malformed, too: the narrower reason comes first.
        rejection = (
            unknown_label(candidate, problem)
            or malformed(candidate, problem)
            or wrong_length(candidate, config)
            or contaminated(candidate, held_out)
            or exact_duplicate(candidate, exact)
            or near_duplicate(candidate, across_steps)
            or too_similar(candidate, within_step)
        )
        if rejection:
            rejected.append(rejection)
            continue
        accepted.append(candidate)
        exact[normalise(candidate.input)] = candidate.id
        within_step.add(candidate.id, candidate.input)
    counts = Counter(rejection.reason for rejection in rejected)
    numbers = {"kept": len(accepted)} | {reason: counts[reason] for reason in get_args(Rule)}
    return FilterResult(kept=accepted, rejected=rejected, counts=numbers)


def unknown_label(example: Example, problem: Problem) -> Rejection | None:
    """A classification's target that is none of the labels, where these are known."""
    labels = problem.config.labels
    if not labels or example.target in labels:
        return None
    return Rejection(example=example, reason="label", detail=f"{example.target!r} is none of the labels")


def malformed(example: Example, problem: Problem) -> Rejection | None:
    """A row its problem cannot use."""
    fault = problem.fault(example)
    return Rejection(example=example, reason="malformed", detail=fault) if fault else None


def wrong_length(example: Example, config: FilterConfig) -> Rejection | None:
    """An input or target shorter or longer than configured (too short and too long are dropped in
    Self-Instruct, arXiv 2212.10560, too)."""
    for name, text in (("input", example.input), ("target", example.target)):
        if not config.min_characters <= len(text) <= config.max_characters:
            allowed = f"{config.min_characters} to {config.max_characters} characters"
            detail = f"the {name}'s length, {len(text)}, is not within {allowed}"
            return Rejection(example=example, reason="length", detail=detail)
    return None


def contaminated(example: Example, held_out: HeldOut) -> Rejection | None:
    """An input that a test row has; LLM2LLM (arXiv 2403.15042) lacks the check."""
    found = held_out.find(example.input)
    return _repeats(example, "contamination", *found) if found else None


def exact_duplicate(example: Example, index: dict[str, str]) -> Rejection | None:
    """An input that a training row has, but for case, punctuation and spaces."""
    found = index.get(normalise(example.input))
    return _repeats(example, "exact_duplicate", found, None) if found is not None else None


def near_duplicate(example: Example, index: RougeIndex) -> Rejection | None:
    """An input close to a training row of whatever step, which LLM2LLM's own rule does not look at."""
    found = index.find(example.input)
    return _repeats(example, "near_duplicate", *found) if found else None


def too_similar(example: Example, index: RougeIndex) -> Rejection | None:
    """LLM2LLM's rule: ROUGE-L F1 above 0.95 with this step's wrong seed rows or its kept rows."""
    found = index.find(example.input)
    return _repeats(example, "rouge", *found) if found else None


def _repeats(example: Example, reason: Reason, against: str, score: float | None) -> Rejection:
    return Rejection(example=example, reason=reason, against=against, score=score)


def _index(threshold: float, examples: Iterable[Example]) -> RougeIndex:
    index = RougeIndex(threshold)
    for example in examples:
        index.add(example.id, example.input)
    return index
