"""Who says what an answer is worth: the problem, a function of the user's in a sandbox, a reward model, a service."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.core.references import ModelRef
from tasks.problems.base import Problem
from tasks.problems.scoring import broken_problem, hanging_problem, in_time, score_answer
from tasks.rewards.config import RewardConfig
from tasks.rewards.endpoint import RewardEndpoint
from tasks.rewards.judgement import Judgement, fit
from tasks.rewards.sandboxed import CannotStart, Outcome, Sandbox

Progress = Callable[[int, int], None]

_EVERY_S = 0.5


def judge(
    config: RewardConfig,
    problem: Problem,
    model: ModelRef | None,
    rows: Sequence[Example],
    progress: Progress,
    endpoint: RewardEndpoint | None = None,
) -> list[Judgement]:
    """One judgement per row, in order. A row without a completion is judged by its own right answer.

    A caller that judges again and again gives the `endpoint` of its own, which knows the service from the calls before:
    one that has answered and is away is waited for. Raises UserError when a verifier fails on the first
    `MOST_TIMED_OUT` rows, or on `MOST_IN_A_ROW` later ones, for want of time, when a function cannot be started, when a
    reward model is missing or gives something that is no number, and when an endpoint fails in any way.
    """
    if config.by == "model":
        return _by_model(config, problem, model, rows, progress)
    if config.by == "endpoint":
        answers = [answer_of(problem, row) for row in rows]
        prompts = [problem.prompt(row) for row in rows]
        endpoint = endpoint or RewardEndpoint(config.endpoint)
        return [Judgement(reward) for reward in endpoint.score(prompts, answers, progress)]
    verify = _by_function if config.by == "function" else _by_problem
    judgements = in_time(
        verify(config, problem, rows), lambda *words: hanging(config, problem.config.name, *words)
    )
    return list(_counted(judgements, len(rows), progress))


def broken(config: RewardConfig, problem: str, failed: int, reason: str) -> UserError:
    """What to say when the verifier failed on all of so many answers: it is broken, and the policy need not be bad."""
    if config.by != "function":
        return broken_problem(problem, failed, reason)
    return UserError(
        f"the function {config.function} failed on all of {failed} answers, at last because {reason}",
        field="reward.function",
        mend="call it by hand with one of these answers, and mend it",
    )


def scores_right_answers(config: RewardConfig, problem: Problem, row: Example) -> bool:
    """Whether the problem is the verifier, and can score the right answer to the question of `row`.

    One that failed on every answer of a policy is not broken then: the answers are of no form that it can read, which
    is the policy's to learn.
    """
    if config.by != "problem":
        return False
    (right,) = _by_problem(config, problem, [row.model_copy(update={"completion": None})])
    return not right.failure


def answer_of(problem: Problem, row: Example) -> str:
    """The model's answer; of a row that has none, the right one."""
    return problem.target(row) if row.completion is None else row.completion


def _by_problem(config: RewardConfig, problem: Problem, rows: Sequence[Example]) -> Iterator[Judgement]:
    for row in rows:
        score = score_answer(problem, row, answer_of(problem, row))
        yield Judgement(score.value, score.failure, score.reason)


def _by_function(config: RewardConfig, problem: Problem, rows: Sequence[Example]) -> Iterator[Judgement]:
    with Sandbox(config.function, memory_mb=config.memory_mb) as sandbox:
        for row in rows:
            prompt = "\n".join(f"{message['role']}: {message['content']}" for message in problem.prompt(row))
            values = (prompt, answer_of(problem, row), row.model_dump(mode="json"))
            try:
                outcome = sandbox.call(*values, time_limit_s=config.time_limit_s)
            except CannotStart as error:
                raise UserError(
                    f"{config.function} cannot be started in a process of its own: {error}",
                    field="reward.function",
                    mend="import it from the current folder to see why; with reward.memory_mb, raise that",
                ) from error
            yield _of_outcome(outcome)


def hanging(config: RewardConfig, problem: str, which: str, reason: str) -> UserError:
    """What to say of a verifier that came to no end on `which` answers."""
    if config.by != "function":
        return hanging_problem(problem, which, reason)
    return UserError(
        f"{config.function} gave no answer within {config.time_limit_s:g} s to {which}",
        field="reward.time_limit_s",
        mend="raise it, or make the function faster",
    )


def _of_outcome(outcome: Outcome) -> Judgement:
    return Judgement(0.0, outcome.failure, outcome.reason) if outcome.failure else fit(outcome.value)


def _by_model(
    config: RewardConfig,
    problem: Problem,
    model: ModelRef | None,
    rows: Sequence[Example],
    progress: Progress,
) -> list[Judgement]:
    if model is None:
        raise UserError(
            "there is no reward model", field="reward.by", mend="train one, or choose problem or function"
        )
    if not rows:
        return []
    from tasks.reward_model.scoring import load_reward_model

    scorer = load_reward_model(model, precision=config.precision, batch_size=config.batch_size)
    prompts = [problem.prompt(row) for row in rows]
    rewards = scorer.score(prompts, [answer_of(problem, row) for row in rows], progress)
    if broken := [reward for reward in rewards if fit(reward).failure]:
        raise UserError(
            f"the reward model {model.uri} gives {broken[0]} for {len(broken)} of {len(rewards)} answers",
            field="reward.by",
            mend="train it again with a lower learning rate; with float16 weights, take bfloat16 or float32",
        )
    return [Judgement(reward) for reward in rewards]


def _counted(judgements: Iterable[Judgement], total: int, progress: Progress) -> Iterator[Judgement]:
    """Pass judgements on and report how many there were, twice a second."""
    last = time.monotonic()
    for number, judgement in enumerate(judgements, 1):
        yield judgement
        if number == total or time.monotonic() - last > _EVERY_S:
            last = time.monotonic()
            progress(number, total)
