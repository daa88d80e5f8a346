"""What the tests of the flows share: the scripted teacher, loops in folders, and one finished run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.loops import Loop
from tests.flows.teacher import write_texts
from tests.scripted_server import ScriptedServer

KEY = "sk-planted-0123456789"
"""The key of the teacher of the finished run, which may be found nowhere."""

NewLoop = Callable[[Path], Loop]


@pytest.fixture(scope="session")
def teacher() -> Iterator[ScriptedServer]:
    """A teacher that writes six new words for every text it is asked for."""
    with ScriptedServer(write_texts) as server:
        yield server


@pytest.fixture(scope="session")
def new_loop(tiny_model: Path, teacher: ScriptedServer, prefect_server: str) -> NewLoop:
    """Makes a loop in a folder."""
    return lambda folder: Loop(folder, tiny_model, teacher.url, prefect_server)


@pytest.fixture
def loop(new_loop: NewLoop, tmp_path: Path) -> Loop:
    """A loop whose store is empty."""
    return new_loop(tmp_path / "loop")


@pytest.fixture(scope="session")
def finished(new_loop: NewLoop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, dict[str, Any]]:
    """A loop that ran undisturbed, and what it printed; its store may be read and run again, not changed."""
    loop = new_loop(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        return loop, loop.command()
