"""A problem's score of an answer, where the problem may be the user's and the answer anything."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.problems.base import Problem, Score
from tasks.rewards.judgement import fit
from tasks.rewards.sandbox_child import describe

MOST_TIMED_OUT = 10
"""When so many answers in a row, from the first one, run out of time, the verifier hangs on all of them."""
MOST_IN_A_ROW = 50
"""And when so many do later, it has come to hang: more than the samples of one odd prompt, and each costs its time."""


class Judged(Protocol):
    """An answer that was scored: how that failed (empty if it did not), and why."""

    @property
    def failure(self) -> str: ...

    @property
    def reason(self) -> str: ...


AnyJudged = TypeVar("AnyJudged", bound=Judged)


def score_answer(problem: Problem, row: Example, answer: str) -> Score:
    """The problem's score. Where it raises, or gives no number from 0 to 1, that is told as a failure, worth 0: one odd
    answer among thousands ends no run."""
    try:
        score = problem.score(row, answer)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - see above; what it raised is the failure's reason
        return Score(value=0.0, answer=None, failure="crashed", reason=describe(error))
    if score.failure:
        return score.model_copy(update={"value": 0.0})
    found = fit(score.value)
    return score.model_copy(update={"value": found.reward, "failure": found.failure, "reason": found.reason})


def broken_problem(name: str, failed: int, reason: str) -> UserError:
    """What to say of a problem that failed on all of so many answers, and on a right one."""
    return UserError(
        f"the problem {name} failed on all of {failed} answers, at last because {reason}",
        field="data.problem",
        mend="call it by hand with one of these answers, and mend it",
    )


def hanging_problem(name: str, which: str, reason: str) -> UserError:
    """What to say of a problem that came to no end on `which` answers."""
    return UserError(
        f"the problem {name} came to no score of {which}: {reason}",
        field="data.problem",
        mend="call its score by hand with one of these answers; leave out a task of reasoning-gym that hangs",
    )


def in_time(answers: Iterable[AnyJudged], hanging: Callable[[str, str], UserError]) -> Iterator[AnyJudged]:
    """Pass scored answers on, until their verifier is found to hang on every one.

    Raises `hanging` of which answers and the last one's reason, when the first `MOST_TIMED_OUT` run out of time, or
    `MOST_IN_A_ROW` later ones.
    """
    any_in_time, late = False, 0
    for number, answer in enumerate(answers, 1):
        late = late + 1 if answer.failure == "timed_out" else 0
        any_in_time = any_in_time or not late
        if late == (MOST_IN_A_ROW if any_in_time else MOST_TIMED_OUT):
            which = f"{late} in a row, up to number {number}" if any_in_time else f"any of the first {number}"
            raise hanging(which, answer.reason)
        yield answer
