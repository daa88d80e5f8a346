"""Rows of a reasoning-gym task: `gym:NAME?size=400&seed=1&min_terms=2&max_terms=3`."""

import functools
import sys
from collections.abc import Mapping
from urllib.parse import unquote

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example
from tasks.rewards.sandboxed import Sandbox

PREFIX = "gym:"
SIZE, MOST_ROWS = 500, 1_000_000
_TIME_LIMIT_S = 1800.0
_FORM = "gym:NAME?size=400&seed=1, then &parameter=value for each of the task's own"


def read_gym(address: str, field: str) -> list[tuple[str, Example]]:
    """The rows in their order, each with its place. `facts` hold what the task's scorer needs.

    `size` is 500 and `seed` 0 unless given; row i of a seed is for most tasks row 0 of seed + i, so that the seeds of
    training and test rows must be further apart than their sizes. Rows without an answer are left out. The same address
    gives the same rows. Raises UserError, for the configuration field `field`, for an address that is not of the form,
    an unknown task or parameter, a value that the task refuses, and a task whose rows have no right answer or whose
    scorer takes any.
    """
    name, parameters, size, seed = parse_address(address, field)
    return list(_rows(address, field, name, tuple(parameters.items()), size, seed))


def check_apart(training: Mapping[str, str], held_out: Mapping[str, str]) -> None:
    """Raise UserError when a held-out set shares seeds of one task, with the same parameters, with any other set.

    Both map configuration fields to addresses; those that are no tasks count nothing. Sets of `training` may share.
    """
    read = {
        field: (address, *parse_address(address, field))
        for field, address in (*training.items(), *held_out.items())
        if address.startswith(PREFIX)
    }
    for field, (one, *task, size, seed) in read.items():
        alike = {name: parts for name, parts in read.items() if list(parts[1:3]) == task}
        for other in sorted(alike.keys() & held_out.keys() - {field}):
            another, _, _, other_size, other_seed = alike[other]
            if seed < other_seed + other_size and other_seed < seed + size:
                free = max(parts[-1] + parts[-2] for parts in alike.values())
                raise UserError(
                    f"{another} shares rows with {field}, {one}: row i of a seed is row 0 of seed + i",
                    field=other,
                    mend=f"give seeds further apart than the sizes, for example seed={free} for {other}",
                )


def parse_address(address: str, field: str) -> tuple[str, dict[str, str], int, int]:
    """Name, the task's own parameters as text, size and seed. A percent sign and two digits stand for a character."""
    name, _, query = address.removeprefix(PREFIX).partition("?")
    parameters: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not (key and equals) or key in parameters:
            fault = f"{key} is given twice" if key in parameters else f"{part!r} is no parameter=value"
            raise UserError(f"{address}: {fault}", field=field, mend=f"give {_FORM}")
        parameters[key] = unquote(value)
    if not name:
        raise UserError(f"{address} names no task", field=field, mend=f"give {_FORM}")
    size = _whole(address, field, "size", parameters.pop("size", str(SIZE)), least=1, most=MOST_ROWS)
    seed = _whole(address, field, "seed", parameters.pop("seed", "0"), least=0, most=2**31)
    return name, parameters, size, seed


def _whole(address: str, field: str, key: str, text: str, *, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        mend = f"give a whole number from {least} to {most}"
        raise UserError(f"{address}: {key}={text} cannot be", field=field, mend=mend)
    return int(text)


# A flow reads its data to check it, to find the cache key, and to prepare it.
@functools.lru_cache(maxsize=16)
def _rows(
    address: str, field: str, name: str, parameters: tuple[tuple[str, str], ...], size: int, seed: int
) -> tuple[tuple[str, Example], ...]:
    with Sandbox("tasks.problems.gym_task:make_rows") as sandbox:
        outcome = sandbox.call(name, dict(parameters), size, seed, time_limit_s=_TIME_LIMIT_S)
    made = outcome.value or {"fault": outcome.reason, "mend": "try other parameters"}
    if "fault" in made:
        raise UserError(f"{address}: {made['fault']}", field=field, mend=made["mend"])
    if not made["rows"]:
        raise UserError(
            f"{address}: none of {size} rows has an answer", field=field, mend="take another task"
        )
    if missing := size - len(made["rows"]):
        print(f"{address}: {missing} of {size} rows left out, they have no answer", file=sys.stderr)
    return tuple(
        (
            f"{address}, row {number}",
            make_example(
                row["question"],
                row["answer"],
                facts={"dataset": name, "parameters": dict(parameters), "metadata": row["metadata"]},
            ),
        )
        for number, row in enumerate(made["rows"], 1)
    )
