"""Self-Instruct (arXiv 2212.10560): new tasks from a few shown ones, some of them written before. Our own wording."""

import random
import re
from collections.abc import Sequence

from tasks.core.examples import Example
from tasks.instruct.request import Request

SHOWN = 8
"""Tasks in context (section 2.2)."""
_TASK = re.compile(r"^\s*(?:task|instruction)?\s*#?(\d{1,3})\s*[.:)]\s*(.*)$", re.IGNORECASE)


def propose(
    seeds: Sequence[Example], written: Sequence[Example], own_share: float, count: int, chance: random.Random
) -> Request:
    """The request for `count` more tasks after SHOWN shown ones, of which the share `own_share` was written by the
    teacher before (2 of 8 as published), as far as there are any."""
    own = min(round(SHOWN * own_share), len(written))
    shown = chance.sample(list(seeds), min(SHOWN - own, len(seeds))) + chance.sample(list(written), own)
    chance.shuffle(shown)
    listed = "\n".join(
        f"{number}. {' '.join(row.input.split())}" for number, row in enumerate(shown, start=1)
    )
    text = (
        "These are tasks that people gave to an assistant. Go on with the list: write "
        f"{count} more, each of another kind, about something else, in one line that can be understood alone.\n\n"
        f"{listed}\n{len(shown) + 1}."
    )
    return Request(
        strategy="self_instruct",
        operation="self_instruct",
        parents=[row.id for row in shown],
        prompt=[{"role": "user", "content": text}],
    )


def read_tasks(text: str, most: int) -> list[str]:
    """The tasks in an answer, one per numbered line, at most so many; what stands before the first number is the first
    task when the answer goes on with the list, as it was asked to."""
    tasks: list[str] = []
    for place, line in enumerate(text.strip().splitlines()):
        match = _TASK.match(line)
        if match:
            tasks.append(match[2].strip())
        elif place == 0 and line.strip() and not line.rstrip().endswith(":"):
            tasks.append(line.strip())
    return [task for task in tasks if task][:most]
