"""How a stage's process ended: its result, or the exception that tells the user what happened."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from tasks.core.credentials import secret_names
from tasks.core.errors import DamagedArtifact, StageFailed, UserError
from tasks.core.launching.job import ERROR, LAUNCHER_LOG, LOG, RESULT

TAIL_LINES = 30

LOWER_MEMORY = (
    "Lower the batch size or the maximum length, turn gradient checkpointing on, use LoRA or 4 bits; "
    "a generation or evaluation needs a smaller generation batch size."
)

_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|(?:CUDA|HIP|XPU|MPS) .*out of memory|DefaultCPUAllocator: can't allocate memory"
    r"|^MemoryError\b|Cannot allocate memory",
    re.MULTILINE | re.IGNORECASE,
)
_RANK_KILLED = re.compile(r"exitcode\s*:\s*-9\b|Signal 9 \(SIGKILL\)")
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_SHORTEST_SECRET = 4
_SEARCHED_BYTES = 65536


def conclude(job: Path, stage: str, status: int) -> dict[str, Any]:
    """The result of a job that ended with `status`: an exit code, or minus the number of a signal.

    Raises the UserError or DamagedArtifact that was raised inside, and StageFailed for any other ending.
    """
    if status == 0 and (job / RESULT).exists():
        result: dict[str, Any] = json.loads((job / RESULT).read_text(encoding="utf-8"))
        return result
    if (job / ERROR).exists():
        raise _error_of(json.loads((job / ERROR).read_text(encoding="utf-8")))
    if status == 0:
        raise StageFailed(stage, "its process ended without a result", log_tail=log_tail(job), passing=True)
    if _OUT_OF_MEMORY.search(_end_of(job / LOG)):
        raise StageFailed(stage, "out of memory", log_tail=log_tail(job), mend=LOWER_MEMORY)
    if _killed_from_outside(job, status):
        reason = "its process was killed (SIGKILL), most likely because the machine ran out of memory"
        raise StageFailed(stage, reason, log_tail=log_tail(job), mend=LOWER_MEMORY, passing=True)
    reason = f"its process crashed ({_describe(status)})"
    raise StageFailed(stage, reason, log_tail=log_tail(job), passing=True)


def log_tail(job: Path) -> str:
    """The last lines the stage printed, or else its launcher program; secret values are masked."""
    text = _end_of(job / LOG).strip() or _end_of(job / LAUNCHER_LOG).strip()
    # Of a progress bar, which draws itself again and again on one line, only the last state counts.
    lines = [line.rsplit("\r", 1)[-1] for line in text.split("\n")[-TAIL_LINES:]]
    return mask_secrets("\n".join(lines))


def mask_secrets(text: str) -> str:
    """`text` with the value of every environment variable that is named like a secret, or came from a block of
    Prefect's, replaced by its name."""
    taken = secret_names()
    secrets = {
        value: name
        for name, value in os.environ.items()
        if (name.upper().endswith(_SECRET_NAMES) or name in taken) and len(value) >= _SHORTEST_SECRET
    }
    # Longest first: a secret that contains another must not survive in part.
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, f"[{secrets[value]}]")
    return text


def _error_of(record: dict[str, str]) -> UserError | DamagedArtifact:
    if record["kind"] == "damaged":
        return DamagedArtifact(record["uri"], record["file"], record["reason"])
    return UserError(record["fault"], field=record["field"], mend=record["mend"])


def _killed_from_outside(job: Path, status: int) -> bool:
    return status == -signal.SIGKILL or bool(_RANK_KILLED.search(_end_of(job / LAUNCHER_LOG)))


def _describe(status: int) -> str:
    return f"exit code {status}" if status > 0 else signal.Signals(-status).name


def _end_of(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _SEARCHED_BYTES))
        return file.read().decode("utf-8", errors="replace")
