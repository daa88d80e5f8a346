"""What a model answered to a batch: read by the numbers that it wrote, never by the order of its lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.core.examples import Example
from tasks.problems.base import Problem
from tasks.problems.scoring import score_answer

_LINE = re.compile(
    r"""^[\s>*_#-]*
    (?: (?:label|answer) \s+ for \s+ )? (?P<word> input \s* \#? )? \s*
    (?P<number> \d{1,6} ) [*_]* \s* (?: : | (?<=\d)[.)] (?=\s) ) [*_]* \s* (?P<rest> .*? ) \s* $""",
    re.VERBOSE | re.IGNORECASE,
)
_CONFIDENCE = re.compile(
    r"[\s(\[]* (?P<not> \b(?:not|un|less|low)[\s_-]* )? confident \b [)\].]* $", re.VERBOSE | re.IGNORECASE
)


@dataclass(frozen=True)
class Ballot:
    """A model's answer to one row in one round."""

    answer: str
    confident: bool


@dataclass
class BatchAnswers:
    """The readable answers by number, and how many of the others there were of each kind.

    `missing` and `malformed` numbers have no answer: nothing was written, or nothing that the problem can read.
    `repeated` numbers were answered more than once; they have an answer when all of it said the same.
    """

    ballots: dict[int, Ballot] = field(default_factory=dict)
    missing: int = 0
    malformed: int = 0
    repeated: int = 0
    out_of_range: int = 0


def read_batch(problem: Problem, rows: Sequence[Example], text: str) -> BatchAnswers:
    """The answers to `rows`, which were numbered from 0, in a completion."""
    found = BatchAnswers()
    written: dict[int, list[Ballot | None]] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        number = int(match["number"])
        if number >= len(rows):
            found.out_of_range += 1
        else:
            written.setdefault(number, []).append(_ballot(problem, rows[number], match["rest"]))
    for number in range(len(rows)):
        ballots = written.get(number, [])
        answers = {ballot.answer if ballot else None for ballot in ballots}
        found.missing += not ballots
        found.repeated += len(ballots) > 1
        if len(answers) == 1 and (sure := ballots[0]) is not None:
            agreed = all(ballot is not None and ballot.confident for ballot in ballots)
            found.ballots[number] = Ballot(sure.answer, agreed)
        else:
            found.malformed += bool(ballots)
    return found


def read_single(problem: Problem, row: Example, text: str) -> Ballot | None:
    """The answer to one row that was asked alone, where nobody is asked how sure he is."""
    answer = score_answer(problem, row, text).answer
    return None if answer is None else Ballot(answer, confident=False)


def _ballot(problem: Problem, row: Example, text: str) -> Ballot | None:
    # "not confident" holds "confident": what stands before the word decides.
    sure = _CONFIDENCE.search(text)
    answer = (text[: sure.start()] if sure else text).strip().strip("*_").strip()
    if answer.startswith("[") and answer.endswith("]"):
        answer = answer[1:-1]
    read = score_answer(problem, row, answer).answer if answer else None
    return None if read is None else Ballot(read, sure is not None and not sure["not"])
