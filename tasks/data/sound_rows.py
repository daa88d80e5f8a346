"""Which rows of the user's are worked on: those that fit the problem and are not longer than is wanted."""

from collections import Counter
from collections.abc import Mapping

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.data.config import DataConfig
from tasks.data.faults import refuse
from tasks.data.reading import read_checked
from tasks.problems.base import Problem

Located = list[tuple[str, Example]]

FAULTY, TOO_LONG = "do not fit the problem", "have an input of more than {} characters"


def read_cells(
    config: DataConfig, split: str, left_out: Counter[str], *, field: str = "", answered: bool = True
) -> Located:
    """The rows of a split whose cells are sound; the others end it, or are counted, as `data.faulty` says."""
    field = field or f"data.{split}"
    located, faults = read_checked(config, split, field=field, answered=answered)
    if config.faulty == "refuse":
        refuse(
            faults, field=field, mend="fill or remove these rows, or leave them out with --data.faulty=drop"
        )
    left_out[FAULTY] += len(faults)
    return located


def fitting(
    config: DataConfig,
    problem: Problem,
    located: Located,
    field: str,
    left_out: Counter[str],
    *,
    answered: bool = True,
) -> Located:
    """The rows, as the problem adapts them, that it can use and that are not too long. Where they need not be
    `answered`, nothing but the question counts of those without an answer, and that is not empty.

    Raises UserError for rows that do not fit (`data.faulty: refuse`) and where none is left.
    """
    rows = [(place, problem.adapt(row)) for place, row in located]
    faults = {
        place: fault for place, row in rows if (answered or row.target) and (fault := problem.fault(row))
    }
    if config.faulty == "refuse":
        refuse(
            [f"{place}: {fault}" for place, fault in faults.items()],
            field=field,
            mend=f"these rows do not fit the problem {problem.config.name!r}: mend or remove them, leave them out with "
            "--data.faulty=drop, or choose another problem with --data.problem=NAME",
        )
    longest, counted = config.longest_input, Counter[str]()
    sound = [(place, row) for place, row in rows if place not in faults]
    short = [(place, row) for place, row in sound if not longest or len(row.input) <= longest]
    counted[FAULTY] = len(rows) - len(sound)
    counted[TOO_LONG.format(longest)] = len(sound) - len(short)
    left_out.update(counted)
    if not short:
        why = words(counted) or f"all {FAULTY}"
        more = ", or a larger data.longest_input" if len(sound) else ""
        raise UserError(f"no row is left: {why}", field=field, mend=f"give other rows{more}")
    return short


def words(left_out: Mapping[str, int]) -> str:
    """How many rows were left out, by reason; empty where none was."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)


def cautions(left_out: Mapping[str, int], of: str) -> list[str]:
    """What a reader of the results should know."""
    said = words(left_out)
    return [f"{of} that were left out: {said}."] if said else []
