"""What a terminal shows of stages that run side by side."""

import io
import sys

from tasks.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(terminal: Terminal) -> list[str]:
    """What stands there in the end: a carriage return goes back to the line's beginning, which is then cleared."""
    return [line.rpartition("\r\033[K")[2] for line in terminal.getvalue().split("\n")]


def test_one_of_two_stages_has_the_bar_until_it_ends(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    first, second = Progress("first"), Progress("second")
    first({"progress": [1, 4]})
    second({"progress": [3, 4]})
    assert lines(terminal)[-1].startswith("first ━")
    second.close()
    shown = lines(terminal)
    assert shown[-2].startswith("second: done")
    assert shown[-1] == ""
    third = Progress("third")
    third({"progress": [1, 4]})
    assert lines(terminal)[-1] == ""
    first({"progress": [2, 4]})
    assert lines(terminal)[-1].startswith("first ━")
    first.close()
    third({"progress": [2, 4]})
    assert lines(terminal)[-1].startswith("third ━")
    third.close("failed")
    assert [line.split(" (")[0] for line in lines(terminal)] == [
        "second: done",
        "first: done",
        "third: failed",
        "",
    ]


def test_elsewhere_there_are_lines_and_no_bar(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    published: list[float] = []
    progress = Progress("stage", published.append)
    progress({"progress": [1, 4], "text": "rows"})
    progress({"progress": [2, 4]})
    progress({"loss": 1.0})
    progress({"progress": [4, 4]})
    assert log.getvalue().splitlines() == ["stage: 1/4 rows", "stage: 4/4 rows"]
    assert published == [25.0, 100.0]
