"""The loop on a tiny model: eight messages in two classes, a scripted teacher, seconds per run."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.examples import Example, read_examples
from tasks.core.references import DatasetRef

TRAIN = [
    ("play jazz", "music"),
    ("will it rain today", "weather"),
    ("turn up the radio please", "music"),
    ("how cold is it in Berlin", "weather"),
    ("a song by my favourite artist", "music"),
    ("is there snow", "weather"),
    ("next track", "music"),
    ("show me the forecast for the weekend", "weather"),
]
TEST = [
    ("play some rock", "music"),
    ("rain in Rome?", "weather"),
    ("louder music", "music"),
    ("hot or cold", "weather"),
]


def write_jsonl(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Rows of `text` and `label`."""
    lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@dataclass
class Loop:
    """A folder with data and a store, and the settings of short runs in it."""

    folder: Path
    model: Path
    teacher: str
    """Address of the scripted teacher."""
    api: str
    """Address of the Prefect server."""
    settings: dict[str, str] = field(default_factory=dict)
    flow: str = "llm2llm"
    cwd: Path | None = None
    """Where the command runs; the program's own folder when None."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(self.folder / "train.jsonl", TRAIN)
        write_jsonl(self.folder / "test.jsonl", TEST)
        self.settings = self.defaults() | self.settings

    def defaults(self) -> dict[str, str]:
        """Settings of a run that takes seconds."""
        return {
            "data.train": str(self.folder / "train.jsonl"),
            "data.test": str(self.folder / "test.jsonl"),
            "data.input": "text",
            "data.target": "label",
            "student.model": str(self.model),
            "teacher.engine.engine": "openai",
            "teacher.engine.endpoint.url": self.teacher,
            "teacher.engine.endpoint.backoff_s": "0.01",
            "store": str(self.store),
            "iterations": "2",
            "equal_steps": "false",
            "evaluation.restricted": "false",  # three steps teach no label: every row is wrong
            "training.max_steps": "3",
            "training.batch_size": "4",
            "training.learning_rate": "1e-3",
            "augment.attempts": "1",
        }

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def flags(self, **changes: object) -> list[str]:
        """The command's flags; `training__seed=3` stands for `--training.seed=3`."""
        given = {name.replace("__", "."): str(value) for name, value in changes.items()}
        return [f"--{name}={value}" for name, value in (self.settings | given).items()]

    def start(self, **changes: object) -> subprocess.Popen[str]:
        """The command in a process and a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows", self.flow, *self.flags(**changes)],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr.txt").open("a"),
            text=True,
            start_new_session=True,
            env=os.environ | {"PREFECT_API_URL": self.api},
            cwd=self.cwd,
        )

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The JSON object in the last line of a command that ends well."""
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, (self.folder / "stderr.txt").read_text()[-4000:]
        result: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return result

    def command(self, **changes: object) -> dict[str, Any]:
        """The command from start to end in a process of its own, as a user runs it; the JSON object it prints."""
        return self.finish(self.start(**changes))

    def run(self, **changes: object) -> dict[str, Any]:
        """The same in this process, which has the libraries and Prefect's client loaded: seconds less."""
        from flows.__main__ import main

        printed, place = io.StringIO(), str(self.cwd or Path.cwd())
        with contextlib.redirect_stdout(printed), contextlib.chdir(place):
            sys.path.insert(0, place)  # as `python -m` does
            try:
                code = main([self.flow, *self.flags(**changes)])
            finally:
                sys.path.remove(place)
        assert code == 0, "what it says is in the captured stderr"
        result: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
        return result

    def manifests(self) -> dict[str, int]:
        """Every finished result of the store with the time it was finished at."""
        found = self.store.glob("*/*/manifest.json")
        return {str(path.relative_to(self.store).parent): path.stat().st_mtime_ns for path in found}

    def stages(self) -> list[str]:
        """The stages of the finished results, sorted."""
        return sorted(name.split("/")[0] for name in self.manifests())


def wait_until(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until `reached()` is true; fails when the process ends before."""
    while not reached():
        assert process.poll() is None, "the command ended too early"
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the command's process alone: what it started has to notice."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def without_places(result: dict[str, Any]) -> dict[str, Any]:
    """What must not differ between two runs of one configuration: figures and the model's digest."""
    return {
        "iterations": result["iterations"],
        "metrics": result["metrics"],
        "model": result["model"]["digest"],
        "stopped": result["stopped"],
    }


def rows_of(result: dict[str, Any]) -> list[Example]:
    """The last training data of a run."""
    from tasks.core.digests import path_digest

    path = Path(result["places"]["data"])
    return read_examples(DatasetRef(uri=str(path), digest=path_digest(path), rows=0))
