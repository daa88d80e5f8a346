"""Evol-Instruct (WizardLM, arXiv 2304.12244) on the rows of a problem: a failed row made harder, or a rarer one of its
field. The operations and the rules for failed evolutions are those of instruction data; the wording is ours."""

import random

from tasks.core.examples import Example
from tasks.core.generators.base import Message
from tasks.instruct.evolving import BREADTH, IN_DEPTH
from tasks.problems.base import Problem

_SYSTEM = "You rewrite exercises for a student, and write the new exercise and nothing else."
_IN_DEPTH = "Rewrite this exercise into a harder one that people can still understand and answer. {operation}"
_IN_BREADTH = (
    "Write a new exercise of the same field as this one, about something rarer, as long and as difficult."
)


def choose_operation(breadth_share: float, chooser: random.Random) -> str:
    """One of IN_DEPTH or, with this chance, BREADTH."""
    return BREADTH if chooser.random() < breadth_share else chooser.choice(list(IN_DEPTH))


def evolve(problem: Problem, parent: Example, operation: str) -> list[Message]:
    """The conversation that asks a teacher to evolve one row by one operation (section 3.2)."""
    asked = _IN_BREADTH if operation == BREADTH else _IN_DEPTH.format(operation=IN_DEPTH[operation])
    text = f"{asked} {problem.stays(parent)} Keep exactly the form of the example.\n\n{problem.show(parent)}"
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
