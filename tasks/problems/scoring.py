"""A problem's score of an answer, where the problem may be the user's and the answer anything."""

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.problems.base import Problem, Score
from tasks.rewards.judgement import fit
from tasks.rewards.sandbox_child import describe


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
