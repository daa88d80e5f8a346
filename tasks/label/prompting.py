"""One prompt for many inputs: every input has a number, and so has every line of the answer."""

from collections.abc import Sequence

from tasks.core.examples import Example
from tasks.core.generators.base import Message
from tasks.problems.base import Problem

ANSWER_OVERHEAD = 16
"""Tokens of an answer's line beside the answer itself: "Label for Input 17: [ ] (not confident)"."""


def batch_prompt(
    problem: Problem, rows: Sequence[Example], demonstrations: Sequence[Example] = ()
) -> list[Message]:
    """The conversation whose continuation answers all of `rows`, in their order, a line each.

    Demonstrations are one finished batch of their own. The number of inputs stands before and after them, as
    published (arXiv 2309.00384, section 2.1), so that a model does not stop early or run on.
    """
    system = problem.config.instruction or problem.instruction
    messages: list[Message] = [{"role": "system", "content": f"{system}\n{_FORM}".strip()}]
    if demonstrations:
        messages += [
            {"role": "user", "content": _batch(problem, demonstrations)},
            {"role": "assistant", "content": "\n".join(map(_answer, *_numbered(problem, demonstrations)))},
        ]
    return [*messages, {"role": "user", "content": _batch(problem, rows)}]


def single_prompt(problem: Problem, row: Example, demonstrations: Sequence[Example] = ()) -> list[Message]:
    """The problem's own prompt for one row, demonstrations as finished exchanges before it."""
    *system, question = problem.prompt(row)
    shown: list[Message] = []
    for example in demonstrations:
        shown += [
            {"role": "user", "content": problem.question(example)},
            {"role": "assistant", "content": problem.target(example)},
        ]
    return [*system, *shown, question]


_FORM = """You get several inputs at once, each with its number. What is said above holds for every one of them alone.
Answer every input with one line of this form, and write nothing else:
Label for Input 0: [answer] (confident)
In the brackets stands the answer to that input; write (not confident) where you are not sure of it."""


def _batch(problem: Problem, rows: Sequence[Example]) -> str:
    inputs = "\n".join(
        f"Input {number}: {' '.join(problem.question(row).split())}" for number, row in enumerate(rows)
    )
    last = len(rows) - 1
    lines = "1 line, for Input 0" if not last else f"{len(rows)} lines, for Input 0 to Input {last}"
    return f"{len(rows)} inputs:\n{inputs}\nThat were {len(rows)} inputs. Answer with {lines}."


def _numbered(problem: Problem, rows: Sequence[Example]) -> tuple[range, list[str]]:
    return range(len(rows)), [problem.target(row) for row in rows]


def _answer(number: int, target: str) -> str:
    return f"Label for Input {number}: [{' '.join(target.split())}] (confident)"
