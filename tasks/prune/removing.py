"""Removing entries of a store so that whoever looks finds a result whole or not at all."""

from tasks.core.store import MANIFEST, USERS, Store
from tasks.prune.inventory import RECORDS, WORK, Entry


def remove(store: Store, entry: Entry) -> bool:
    """Remove an entry; returns False when a run came to use it since it was listed, and it stays.

    The manifest goes first: a kill in between leaves a folder that does not count as a result, and that the next time
    removes. A run notes its use before it looks for the manifest, so that one of the two sees the other.
    """
    if entry.folder.startswith(f"{WORK}/"):
        if _is_worked_in(store, entry):
            return False
        store.remove(entry.folder)
        return True
    if entry.kind == "result":
        manifest = f"{entry.folder}/{MANIFEST}"
        try:
            content = store.read(manifest)
        except FileNotFoundError:  # who was quicker removes the rest
            return False
        store.remove(manifest)
        if _users(store, entry) - entry.users:
            store.write(manifest, content)
            return False
        store.remove(
            f"{RECORDS}/{entry.stage}-{entry.key}"
        )  # Prefect's; its own check would refresh it as well
    elif entry.folder == f"{entry.stage}/{entry.key}" and (
        # What a run left that came to no result: the same may be under way again, or finished by now.
        _users(store, entry) - entry.users or store.find(entry.stage, entry.key)
    ):
        return False
    store.remove(entry.folder)
    return True


def _users(store: Store, entry: Entry) -> set[str]:
    folder = "/".join(entry.folder.split("/")[:2])
    return {name.rpartition("/")[2] for name in store.listing(f"{folder}/{USERS}")}


def _is_worked_in(store: Store, entry: Entry) -> bool:
    """Whether a process on this machine works in the folder: it holds the lock beside it."""
    import fcntl

    with store.work_folder(entry.stage, entry.key).with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
