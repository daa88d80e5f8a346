"""A flow that asks a teacher behind a real server, run by its command."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.__main__ import main
from tests.scripted_server import ScriptedServer


@dataclass
class Command:
    """The command in a folder of its own; called, it gives the exit code, the result's JSON and what was said."""

    flow: str
    teacher: ScriptedServer
    folder: Path
    settings: dict[str, Any]
    capsys: pytest.CaptureFixture[str]

    def __call__(self, **changes: Any) -> tuple[int, dict[str, Any], str]:
        """`data__test="x"` stands for `--data.test=x`; None leaves a setting out."""
        settings = {
            "teacher.engine.engine": "openai",
            "teacher.engine.endpoint.url": self.teacher.url,
            "store": self.folder / "store",
            "tracking.uri": f"sqlite:///{self.folder}/mlflow.db",
        }
        settings |= self.settings | {name.replace("__", "."): value for name, value in changes.items()}
        flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
        code = main([self.flow, *flags])
        printed = self.capsys.readouterr()
        return code, json.loads(printed.out.splitlines()[-1]) if not code else {}, printed.err

    def refuses(self, changes: dict[str, Any], field: str, words: str) -> None:
        """Assert that a mistake is told by its field and in these words, without asking the teacher or a traceback."""
        before = len(self.teacher.requests)
        code, _, said = self(**changes)
        assert (code, len(self.teacher.requests)) == (2, before)
        assert field in said
        assert words in said
        assert "Traceback" not in said
