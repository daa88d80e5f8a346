"""Functions of a user who scores answers, well and badly: what the answer says decides what happens."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

UNIT = {letter: at / 10 for at, letter in enumerate("abcdefghij")}
BULKY = 50_000_000


def verify(prompt: str, completion: str, example: dict[str, Any]) -> Any:
    """a is 0.0, b 0.1 … j 0.9; a word misbehaves."""
    return WORDS[completion]() if completion in WORDS else UNIT[completion]


def _hang() -> None:
    while True:
        time.sleep(1)


def _hang_in_c() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter: no thread beside it runs


def _segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def _print() -> float:
    print("x" * BULKY)
    os.write(2, b"y" * BULKY)
    return 0.5


def _die_loudly() -> None:
    print("the licence server is down", flush=True)
    os._exit(4)


def _die_later() -> float:
    threading.Timer(0.1, os._exit, (9,)).start()
    return 0.5


def _forgotten_fork() -> float:
    os.fork()
    return 0.5


def _memory() -> float:
    return len(bytearray(3 << 30)) / (3 << 30)


def _numpy() -> Any:
    import numpy

    return numpy.float32(0.5)


def _exit() -> None:
    sys.exit("I leave")


WORDS: dict[str, Any] = {
    "hang": _hang,
    "hang in C": _hang_in_c,
    "segfault": _segfault,
    "os._exit": lambda: os._exit(3),
    "kill group": lambda: os.killpg(0, 9),
    "sys.exit": _exit,
    "raise": lambda: 1 / 0,
    "print": _print,
    "die loudly": _die_loudly,
    "die later": _die_later,
    "forgotten fork": _forgotten_fork,
    "memory": _memory,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "text": lambda: "0.5",
    "none": lambda: None,
    "seven": lambda: 7,
    "minus": lambda: -0.5,
    "list": lambda: [0.5],
    "object": object,
    "huge": lambda: 10**400,
    "true": lambda: True,
    "numpy": _numpy,
    "rounding": lambda: 1.0000000001,
}


def doubtful(prompt: str, completion: str, example: dict[str, Any]) -> float:
    """No number for about a third of all answers, unless the environment says SURE."""
    number = sum(completion.encode())
    return float("nan") if number % 3 == 0 and "SURE" not in os.environ else number % 7 / 10


def nothing(prompt: str, completion: str, example: dict[str, Any]) -> float:
    """No number for any answer."""
    return float("nan")


def note(prompt: str, completion: str, example: dict[str, Any]) -> float:
    """Keeps every call in the file that the environment names."""
    with Path(os.environ["CALLS"]).open("a") as file:
        file.write(f"{prompt!r} {completion!r} {example['id']} {example['target']!r}\n")
    return len(completion) / 10


def leave_running(prompt: str, completion: str, example: dict[str, Any]) -> float:
    """Starts a process and forks one, both of which outlive the call; then hangs if the answer says so."""
    started = subprocess.Popen(["sleep", "600"])
    forked = os.fork()
    if forked == 0:
        time.sleep(600)
    path = Path(os.environ["PIDS"])
    path.with_suffix(".new").write_text(f"{os.getpid()} {started.pid} {forked}")
    path.with_suffix(".new").rename(path)
    if completion == "hang":
        _hang_in_c()
    return 0.5


def in_a_set() -> list[str]:
    """A set in the order in which it is iterated."""
    return list({f"word {number}" for number in range(50)})


def loaded() -> list[str]:
    """Which heavy libraries the process has."""
    return [name for name in ("torch", "transformers", "prefect", "mlflow", "numpy") if name in sys.modules]


def two(prompt: str, completion: str) -> float:
    """Takes too few arguments."""
    return 0.0
