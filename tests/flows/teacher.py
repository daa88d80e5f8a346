"""A scripted teacher: what it writes is a function of the request alone, whatever order the requests come in."""

import hashlib
import re
from typing import Any

from tests.scripted_server import Reply, completion

WORDS = [
    "amber",
    "birch",
    "copper",
    "delta",
    "ember",
    "fjord",
    "garnet",
    "harbor",
    "island",
    "jasper",
    "kettle",
    "lagoon",
    "meadow",
    "nectar",
    "orchid",
]


def sentence(seed: str) -> str:
    """Six words that depend on `seed` alone."""
    digest = hashlib.sha256(seed.encode()).digest()
    return " ".join(WORDS[byte % len(WORDS)] for byte in digest[:6])


def asked_for(request: dict[str, Any]) -> int:
    """How many rows a request wants."""
    found = re.search(r"Write (\d+) ", request["messages"][-1]["content"])
    assert found is not None
    return int(found.group(1))


def write_texts(request: dict[str, Any]) -> Reply:
    """As many numbered texts as are asked for."""
    seed = str(request)
    lines = (f"{number}. {sentence(f'{seed} {number}')}" for number in range(1, asked_for(request) + 1))
    return completion("\n".join(lines))


def write_sums(request: dict[str, Any]) -> Reply:
    """As many exercises in addition as are asked for, each with its right answer."""
    seed, exercises = str(request), []
    for number in range(1, asked_for(request) + 1):
        digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
        first, second = digest[0], digest[1]
        question = f"Question: {sentence(seed + str(number))}: {first} and {second}, how many together?"
        exercises.append(f"{question}\nAnswer: {first} + {second} = {first + second} #### {first + second}")
    return completion("\n\n".join(exercises))
