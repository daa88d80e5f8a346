"""Prune: what in the artifact store no registered model and no recent run refers to; `--remove` removes it."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.command_line import read_config
from tasks.core.credentials import take_credentials
from tasks.core.errors import UserError
from tasks.core.progress import Progress
from tasks.core.settings import default_store
from tasks.core.store import Store
from tasks.core.tracking import Tracking
from tasks.prune.config import PruneConfig
from tasks.prune.inventory import Entry, take_inventory
from tasks.prune.plan import Plan, make_plan
from tasks.prune.references import referred
from tasks.prune.removing import remove

if TYPE_CHECKING:
    from rich.table import Table

USAGE = """python -m flows prune [--remove] [--field=value …]
Lists what in the artifact store no registered model version and no recent run refers to. Nothing is removed
  --remove             without this
Every field, with its bounds, follows."""


def run_prune(arguments: Sequence[str]) -> int:
    """List, and with `--remove` remove: a table on standard error, one JSON line on standard output. Returns the exit
    code; raises UserError for a mistake."""
    if "-h" in arguments or "--help" in arguments:
        print(USAGE, flush=True)
    given = [argument for argument in arguments if argument != "--remove"]
    config = read_config(PruneConfig, "python -m flows prune", given)
    take_credentials(config.credentials)
    store = Store(config.store or default_store())
    tracking = Tracking(config.tracking)
    # The store is listed before MLflow is asked: a run that begins in between is younger than what was listed.
    entries = take_inventory(store)
    if not entries and not store.exists():
        raise UserError(
            f"there is nothing at {store.root}", field="store", mend="name the store that runs write to"
        )
    plan = make_plan(entries, referred(tracking, config.recent_runs), config)
    _print(store, entries, plan)
    if "--remove" in arguments:
        removed = _remove(store, plan.removable)
    else:
        removed = []
        print("Nothing was removed: that takes --remove", file=sys.stderr)
    summary = {
        "store": store.root,
        "kept": dict(Counter(plan.kept.values())),
        "removable": [{"folder": one.folder, "bytes": one.size} for one in plan.removable],
        "removable_bytes": sum(one.size for one in plan.removable),
        "removed": len(removed),
        "removed_bytes": sum(one.size for one in removed),
    }
    print(json.dumps(summary), flush=True)
    return 0


def _remove(store: Store, entries: Sequence[Entry]) -> list[Entry]:
    progress, removed = Progress("remove"), list[Entry]()
    for number, entry in enumerate(entries, 1):
        if remove(store, entry):
            removed.append(entry)
        progress({"progress": [number, len(entries)], "text": "removed"})
    progress.close()
    return removed


def _print(store: Store, entries: Sequence[Entry], plan: Plan) -> None:
    from rich.console import Console

    console = Console(file=sys.stderr, width=120, highlight=False)
    console.print(f"{store.root}: {len(entries)} artifacts, {_size(entries)}", markup=False, soft_wrap=True)
    console.print(_table(entries, plan))
    for reason, count in Counter(plan.kept.values()).most_common():
        console.print(f"{count:>6} kept: {reason}", markup=False)


def _table(entries: Sequence[Entry], plan: Plan) -> "Table":
    from rich.table import Table

    table = Table("stage", "kept", "size", "to remove", "size of these")
    for stage in sorted({entry.stage for entry in entries}):
        own = [entry for entry in entries if entry.stage == stage]
        kept = [entry for entry in own if entry.folder in plan.kept]
        others = [entry for entry in own if entry.folder not in plan.kept]
        table.add_row(stage, str(len(kept)), _size(kept), str(len(others)), _size(others))
    return table


def _size(entries: Sequence[Entry]) -> str:
    return f"{sum(entry.size for entry in entries) / 1e6:,.1f} MB"
