"""What an artifact store holds: results of stages, and what killed runs left."""

import re
from dataclasses import dataclass, field
from typing import Literal

from tasks.core.progress import Progress
from tasks.core.store import MANIFEST, USERS, Manifest, Store

_KEY = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
WORK, RECORDS = "work", "records"
"""The folders of unfinished stages, and of what Prefect keeps about finished ones."""


@dataclass
class Entry:
    """One folder of the store: a stage's result, or (`left`) what a killed attempt at one left."""

    folder: str
    """Its name beneath the root."""
    kind: Literal["result", "left"]
    key: str
    size: int = 0
    written: float = 0.0
    """When something in it was last written or used, in seconds."""
    users: set[str] = field(default_factory=set)
    """Runs that used it."""
    refers: set[str] = field(default_factory=set)
    """Keys of other results that this one names."""

    @property
    def stage(self) -> str:
        parts = self.folder.split("/")
        return parts[1] if parts[0] == WORK else parts[0]


def keys_in(text: str) -> set[str]:
    """Everything in a text that may be the key of a result: where a store lies, and is mounted, does not matter."""
    return set(_KEY.findall(text))


def take_inventory(store: Store) -> list[Entry]:
    """All entries. A result has a manifest; a folder without one, an attempt that no manifest names, and a working
    folder were left by a run that was killed, or belong to one that is under way."""
    found: dict[str, Entry] = {}
    attempts: dict[str, str] = {}
    listing = store.listing()
    names = [name for name in listing if _is_manifest(name)]
    progress = Progress("list")
    for number, name in enumerate(names, 1):
        folder = name.removesuffix(f"/{MANIFEST}")
        key = folder.partition("/")[2]
        text = _text(store, name)
        if (attempt := _attempt(text)) is not None:
            attempts[folder] = attempt
            found[folder] = Entry(folder, "result", key, refers=keys_in(text) - {key})
        progress({"progress": [number, len(names)], "text": "read"})
    progress.close()
    for name, (size, written) in listing.items():
        entry = _entry(found, attempts, name)
        if entry is not None:
            entry.size += size
            entry.written = max(entry.written, written)
            if f"/{USERS}/" in name:
                entry.users.add(name.rpartition("/")[2])
    for entry in found.values():  # runs note their use with the result, whether it is there already or not
        result = found.get(f"{entry.stage}/{entry.key}")
        entry.users |= result.users if result else set()
    return sorted(found.values(), key=lambda entry: entry.folder)


def _entry(found: dict[str, Entry], attempts: dict[str, str], name: str) -> Entry | None:
    """The entry that a file belongs to; None for locks, records and files of others."""
    parts = name.split("/")
    if parts[0] == WORK:
        if len(parts) < 4:
            return None
        return found.setdefault("/".join(parts[:3]), Entry("/".join(parts[:3]), "left", parts[2]))
    if parts[0] == RECORDS or len(parts) < 3 or not _KEY.fullmatch(parts[1]):
        return None
    folder, attempt = "/".join(parts[:2]), parts[2]
    if folder not in attempts:
        return found.setdefault(folder, Entry(folder, "left", parts[1]))
    if attempt in (MANIFEST, USERS, attempts[folder]) or attempt.startswith(MANIFEST):
        return found[folder]
    beside = "/".join(parts[:3])
    return found.setdefault(beside, Entry(beside, "left", parts[1]))


def _is_manifest(name: str) -> bool:
    stage, _, rest = name.partition("/")
    key, _, file = rest.partition("/")
    return file == MANIFEST and stage not in (WORK, RECORDS) and _KEY.fullmatch(key) is not None


def _attempt(text: str) -> str | None:
    """The attempt that a manifest names; None when it cannot be read, and so is no manifest."""
    try:
        return Manifest.model_validate_json(text).attempt
    except ValueError:
        return None


def _text(store: Store, name: str) -> str:
    try:
        return store.read(name).decode("utf-8", "replace")
    except FileNotFoundError:  # removed since it was listed
        return ""
