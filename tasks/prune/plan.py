"""Which entries of a store are kept, each with its reason, and which are not."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.prune.config import PruneConfig
from tasks.prune.inventory import Entry
from tasks.prune.references import Referred

YOUNG, UNKNOWN, BENEATH = (
    "written or used lately",
    "run that this MLflow does not know",
    "named by a kept result",
)


@dataclass(frozen=True)
class Plan:
    """The entries that are kept, by folder with the reason, and those that can be removed."""

    kept: dict[str, str]
    removable: list[Entry]


def make_plan(
    entries: Sequence[Entry], found: Referred, config: PruneConfig, now: float | None = None
) -> Plan:
    """Keep what a registered model, a run under way or a recent run uses or names, what was written lately, what
    runs of another MLflow used, and whatever a kept result names."""
    oldest = (time.time() if now is None else now) - 86400 * config.age_days
    kept: dict[str, str] = {}
    for entry in entries:
        if (reason := _reason(entry, found, oldest)) is not None:
            kept[entry.folder] = reason
    _keep_named(entries, kept)
    return Plan(kept, [entry for entry in entries if entry.folder not in kept])


def _reason(entry: Entry, found: Referred, oldest: float) -> str | None:
    """Why an entry is kept; None when nothing speaks for it."""
    # What a killed run left serves nobody but a run that goes on from it.
    reasons: Iterable[str] = found.runs if entry.kind == "result" else ["run under way"]
    for reason in reasons:
        if entry.users & found.runs[reason] or (entry.kind == "result" and entry.key in found.keys[reason]):
            return reason
    if entry.users - found.known:
        return UNKNOWN
    return YOUNG if entry.written > oldest else None


def _keep_named(entries: Sequence[Entry], kept: dict[str, str]) -> None:
    """Keep what kept results name, and what those name in turn."""
    results = {entry.key: entry for entry in entries if entry.kind == "result"}
    waiting = [entry for entry in results.values() if entry.folder in kept]
    while waiting:
        for key in waiting.pop().refers & results.keys():
            named = results[key]
            if named.folder not in kept:
                kept[named.folder] = BENEATH
                waiting.append(named)
