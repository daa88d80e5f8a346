"""Checkpoints of a stage under way, mirrored to a remote store: the loss of the machine costs what came after the last.

    <root>/<stage>/<key>/checkpoints/<name>-<…>/…      the files of one
    <root>/<stage>/<key>/checkpoints/<step>-<…>.json   written last: which of them lay together, and their digests

A stage writes its checkpoints into the folder `checkpoints` beside its `out`, each in a folder `<word>-<step>`, and
last into each a file that says that it is whole. On the disk they stay what resuming reads; the mirror follows them.
"""

import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.store import Store, link_or_copy, relocate

FOLDER = "checkpoints"
WHOLE = ("whole.json", "state.json")
"""The last file of a checkpoint: of one that transformers wrote, of one of PPO's own."""
POLL_S = 2.0
LAST_S = 60.0
"""How long a training that ended early, by a signal most of all, waits for its last checkpoint to reach the store: a
machine that is taken away is there for some two minutes, of which `launch.grace_s` went into writing it."""
_LEFT_S = 5.0


class Mirror(BaseModel):
    """The checkpoints that lay together at one moment."""

    place: str
    """Their folder, on the machine that wrote them: they may name each other by it."""
    folders: dict[str, str]
    """Where the files of each lie in the store, by its name."""
    sha256: dict[str, dict[str, str]]


@contextmanager
def mirrored(store: Store, stage: str, key: str, work: Path) -> Iterator[None]:
    """Put back what an attempt on another machine left, then mirror what is written within the block.

    A store that fails meanwhile is no reason to end a training: that is said, and the next checkpoint tried. A block
    that raises, as one does that was asked to end, has left its last checkpoint just now: that one is waited for, for
    `LAST_S` seconds.
    """
    root, local = f"{stage}/{key}/{FOLDER}", work / FOLDER
    restore(store, root, local)
    ended, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=_follow, args=(store, root, local, ended, stop), name="checkpoints", daemon=True
    )
    thread.start()
    try:
        yield
    except BaseException:
        try:
            ended.set()
            thread.join(LAST_S)
            if thread.is_alive():
                took = f"the last took longer than {LAST_S:g} s"
                print(f"checkpoints are not mirrored: {took}", file=sys.stderr, flush=True)
        finally:  # a second signal ends the wait
            stop.set()
            thread.join(_LEFT_S)  # longer where the store is silent; the thread does not keep the process
        raise
    stop.set()  # the result comes in the place of the checkpoints
    ended.set()
    thread.join()


def restore(store: Store, root: str, local: Path) -> None:
    """Fetch the newest mirrored checkpoints, unless those here are as new; those that are damaged are passed by."""
    here = max((_step(path.name) for path in whole(local)), default=-1)
    for name in _manifests(store, root):
        if _step_of(name) <= here:
            return
        mirror = Mirror.model_validate_json(store.read(name))
        coming = local.with_name(f"{FOLDER}.coming")
        shutil.rmtree(coming, ignore_errors=True)
        try:
            got = {one: store.get(folder, coming / one) for one, folder in mirror.folders.items()}
        except FileNotFoundError:  # it went while it was read: a newer one is there, or none any more
            continue
        if got == mirror.sha256:
            _move_paths(coming, mirror.place, str(local))
            shutil.rmtree(local, ignore_errors=True)
            coming.replace(local)
            print(
                f"{root}: goes on from {', '.join(sorted(got))}, as the store has it",
                file=sys.stderr,
                flush=True,
            )
            return
        print(f"{root}: {name} is damaged and is passed by", file=sys.stderr, flush=True)


def mirror_now(store: Store, root: str, local: Path, stop: threading.Event | None = None) -> bool:
    """Bring the mirror to what is here; whether anything had to be done."""
    names = {path.name for path in whole(local)}
    manifests = _manifests(store, root)
    before = Mirror.model_validate_json(store.read(manifests[0])) if manifests else None
    if not names or (before and names == before.folders.keys()):
        return False
    mirror = Mirror(place=str(local), folders={}, sha256={})
    for name in sorted(names):
        if before and name in before.folders:
            mirror.folders[name], mirror.sha256[name] = before.folders[name], before.sha256[name]
            continue
        frozen = local.with_name(f"{FOLDER}.going")
        shutil.rmtree(frozen, ignore_errors=True)
        try:
            # Linked, for the training removes old checkpoints as it writes new ones.
            shutil.copytree(local / name, frozen, copy_function=link_or_copy)
        except (FileNotFoundError, shutil.Error):
            if name in {path.name for path in whole(local)}:
                raise  # it is what the disk refuses, which is said
            return False  # it went just now; the next look finds its successor
        mirror.folders[name] = f"{root}/{name}-{uuid.uuid4().hex[:8]}"
        mirror.sha256[name] = store.put(frozen, mirror.folders[name], stop)
        shutil.rmtree(frozen)
    newest = max(map(_step, names))
    store.write(f"{root}/{newest}-{uuid.uuid4().hex[:8]}.json", mirror.model_dump_json().encode())
    for name in manifests:
        store.remove(name)
    for folder in set(before.folders.values() if before else ()) - set(mirror.folders.values()):
        store.remove(folder)
    return True


def whole(local: Path) -> list[Path]:
    """The checkpoints of a folder that were written to their end."""
    return [
        path
        for path in (local.iterdir() if local.is_dir() else ())
        if path.name.rpartition("-")[2].isdigit()
        and not path.name.startswith("torn")
        and any((path / name).exists() for name in WHOLE)
    ]


def _follow(store: Store, root: str, local: Path, ended: threading.Event, stop: threading.Event) -> None:
    """Mirror until `ended` is set, and what is there then, which has to be all; `stop` breaks off."""
    done: set[str] = set()
    last = False
    while not last:
        last = ended.wait(POLL_S)
        if stop.is_set():
            return
        names = {path.name for path in whole(local)}
        if names == done and not last:
            continue
        try:
            mirror_now(store, root, local, stop)
        except (UserError, OSError) as error:
            if stop.is_set():
                return
            print(f"checkpoints are not mirrored: {error}", file=sys.stderr, flush=True)
        done = names


def _manifests(store: Store, root: str) -> list[str]:
    """The names of the manifests, the newest first."""
    names = [name for name in store.listing(root) if name.endswith(".json") and name.count("/") == 3]
    return sorted(names, key=_step_of, reverse=True)


def _step_of(manifest: str) -> int:
    return int(manifest.rpartition("/")[2].partition("-")[0])


def _step(name: str) -> int:
    return int(name.rpartition("-")[2])


def _move_paths(folder: Path, old: str, new: str) -> None:
    """transformers names the best checkpoint by its path, which is another one on another machine."""
    import json

    for path in folder.glob("*/trainer_state.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(relocate(state, old, new), indent=2), encoding="utf-8")
