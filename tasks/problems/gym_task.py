"""A task of reasoning-gym by its name: its rows, and its own scorer.

Both functions are made to be called in a sandbox (`tasks.rewards.sandboxed`), and nothing else imports this module, so
that the library is loaded when the sandbox starts and not on a call's time. Several tasks depend on the order of a set,
which only a fixed hash seed makes the same in every process; some scorers hang on an odd answer ("1e999999999") or
raise on one that is malformed.
"""

import dataclasses
import functools
import json
import random
from collections.abc import Mapping
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from reasoning_gym import create_dataset
from reasoning_gym.factory import DATASETS

from tasks.problems.gym_evaluation import disarm

_ELSEWHERE = ("example_correct_answer", "example_answer", "possible_answer")
"""Where the metadata has a right answer when there are many and the entry has none."""

_NONSENSE = "I do not know ]"


def make_rows(name: str, parameters: dict[str, str], size: int, seed: int) -> dict[str, Any]:
    """{"rows": [{"question", "answer", "metadata"}, …]}, or {"fault", "mend"} for what a user can mend.

    Rows without an answer (the empty text) are left out. The same arguments give the same rows where sets are iterated
    in the same order.
    """
    try:
        task = _create(name, parameters, size=size, seed=seed)
    except _Unfit as unfit:
        return {"fault": unfit.fault, "mend": unfit.mend}
    random.seed(seed)  # one task draws from the global generator
    rows = []
    for index in range(size):
        entry = task[index]
        answer = _right_answer(entry)
        if answer is None:
            return {
                "fault": f"the task {name} has no right answer to learn from, only a scorer",
                "mend": "take another task",
            }
        if answer.strip():
            metadata = pack(entry["metadata"])
            rows.append({"question": entry["question"], "answer": answer, "metadata": metadata})
    if rows and _takes_anything(name, parameters, rows[0]):
        return {
            "fault": f"the scorer of the task {name} gives full marks to any answer",
            "mend": "take another task",
        }
    return {"rows": rows}


def _takes_anything(name: str, parameters: dict[str, str], row: dict[str, Any]) -> bool:
    try:
        return score(name, parameters, row["question"], row["answer"], row["metadata"], _NONSENSE) >= 1
    except Exception:  # noqa: BLE001 - many scorers raise on nonsense, which is no full marks
        return False


def score(
    name: str, parameters: dict[str, str], question: str, target: str, metadata: Any, answer: str
) -> float:
    """What the task's own scorer gives `answer`; `parameters` and `metadata` are those of `make_rows`."""
    disarm()
    entry = {"question": question, "answer": target, "metadata": unpack(metadata)}
    return float(_scorer(name, tuple(sorted(parameters.items()))).score_answer(answer, entry))


@functools.lru_cache(maxsize=64)
def _scorer(name: str, parameters: tuple[tuple[str, str], ...]) -> Any:
    return _create(name, dict(parameters), size=1, seed=0)


class _Unfit(Exception):
    def __init__(self, fault: str, mend: str) -> None:
        self.fault, self.mend = fault, mend
        super().__init__(fault)


def _create(name: str, parameters: Mapping[str, str], *, size: int, seed: int) -> Any:
    if name not in DATASETS:
        close = get_close_matches(name, DATASETS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(DATASETS))}"
        raise _Unfit(f"reasoning-gym has no task {name!r}", hint)
    config = DATASETS[name][1]
    fields = {field.name: field for field in dataclasses.fields(config)}
    types = get_type_hints(config)
    listed = ", ".join(map(_shown, (field for key, field in fields.items() if key not in ("size", "seed"))))
    mend = f"its parameters are {listed}" if listed else "it has no parameters"
    values = {}
    for key, text in parameters.items():
        if key not in fields:
            raise _Unfit(f"the task {name} has no parameter {key!r}", mend)
        try:
            values[key] = _convert(text, types[key])
        except ValueError as error:
            raise _Unfit(f"{key}={text} is no {_type_name(types[key])}", mend) from error
    try:
        return create_dataset(name, **values, size=size, seed=seed)
    except (AssertionError, ValueError) as error:
        raise _Unfit(f"the task {name} refuses its parameters: {error}", mend) from error


def _convert(text: str, wanted: Any) -> Any:
    """The value that `text` stands for: the text itself, JSON, or a list with commas, whichever first fits."""
    adapter: TypeAdapter[Any] = TypeAdapter(wanted)
    readings: list[Any] = [text]
    try:
        readings.append(json.loads(text))
    except ValueError:
        readings.append(text.split(","))
    for reading in readings:
        try:
            return adapter.validate_python(reading)
        except ValidationError:
            continue
    raise ValueError(text)


def _shown(field: Any) -> str:
    if field.default is dataclasses.MISSING:
        return str(field.name)
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"{field.name}={default}"


def _type_name(wanted: Any) -> str:
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")


def _right_answer(entry: dict[str, Any]) -> str | None:
    answer = entry["answer"]
    if answer is None:
        answer = next((entry["metadata"][key] for key in _ELSEWHERE if key in entry["metadata"]), None)
    return answer if answer is None or isinstance(answer, str) else json.dumps(answer)


def pack(value: Any) -> Any:
    """`value` as JSON from which `unpack` makes an equal one: scorers tell tuples from lists and 1 from "1".

    Raises TypeError for a value of another kind than those in the metadata of the tasks.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, tuple):
        return {"(tuple)": [pack(item) for item in value]}
    if isinstance(value, Fraction):
        return {"(fraction)": str(value)}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("(") for key in value):
            return {key: pack(item) for key, item in value.items()}
        return {"(dict)": [[pack(key), pack(item)] for key, item in value.items()]}
    raise TypeError(f"the task's metadata holds a {type(value).__name__}")


def unpack(value: Any) -> Any:
    """What `pack` packed."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "(tuple)" in value:
        return tuple(unpack(value["(tuple)"]))
    if "(fraction)" in value:
        return Fraction(value["(fraction)"])
    if "(dict)" in value:
        return {unpack(key): unpack(item) for key, item in value["(dict)"]}
    return {key: unpack(item) for key, item in value.items()}
