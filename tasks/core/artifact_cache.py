"""Local copies of remote artifacts, of a limited size: what was not used for longest goes first, never one in use.

    <cache>/artifacts/<digest>                    a file or a folder, there as a whole or not at all
    <cache>/artifacts/<digest>.<bytes>.partial/   one on its way, counted with the size that it will have
    <cache>/locks/<digest>                        locked while it comes or goes
    <cache>/locks/<digest>.used                   locked, shared, by every process that was given the copy, until that
                                                  ends; when it was last written is when the copy was last used

Kernel locks, not files that say "taken": they are gone the moment their holder dies, however it dies.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tasks.core.errors import UserError
from tasks.core.settings import cache_folder, cache_limit

_POLL_S = 0.1
_GB = 10**9
_PARTIAL = ".partial"
_in_use: dict[Path, IO[bytes]] = {}
"""The locks of what this process was given. A forked child holds those of its parent as well."""


@contextmanager
def held(digest: str) -> Iterator[Path]:
    """Where the copy lies, or will. Within the block nobody else brings or removes it; after the block this process
    counts as using it until it ends, unless the block raised."""
    _make_folders()
    target, used = _copies() / digest, _locks() / f"{digest}.used"
    with _locked(_locks() / digest):
        known = used in _in_use
        if not known:
            _in_use[used] = used.open("ab")
            fcntl.flock(
                _in_use[used], fcntl.LOCK_SH
            )  # at once: who removes the copy holds the other lock as well
        os.utime(used)
        try:
            yield target
        except BaseException:
            if not known:
                _in_use.pop(used).close()
            raise


def bring(target: Path, size: int, copy: Callable[[Path], None]) -> None:
    """Let `copy` write `size` bytes to a path of its choice, and put that at `target` when it is whole, within `held`.

    Makes room first, where LOOPWRIGHT_CACHE_GB sets a limit. When the disk is full, all that is not in use goes, and
    the copy is tried once more. Raises UserError when that makes too little room.
    """
    try:
        _bring(target, size, copy)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        with _locked(_locks() / "space"):
            freed = _evict(_total())
        if not freed:
            raise _full(target, size) from error
        try:
            _bring(target, size, copy)
        except OSError as again:
            if again.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _full(target, size) from again


def remove(path: Path) -> None:
    """Remove a file or a folder; one that is not there is no error."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _bring(target: Path, size: int, copy: Callable[[Path], None]) -> None:
    partial = target.with_name(f"{target.name}.{size}{_PARTIAL}")
    remove(partial)  # of a process that was killed: who holds the copy is alone
    with _locked(_locks() / "space"):
        _make_room(size)
        partial.mkdir()
    try:
        copy(partial / "content")
        (partial / "content").replace(target)
    finally:
        remove(partial)


def _make_room(size: int) -> None:
    limit = cache_limit()
    if limit is None:
        return
    if (over := _total() + size - limit) > 0:
        _evict(over)
    if (left := _total()) + size > limit:
        raise UserError(
            f"an artifact of {size / _GB:.3g} GB has no room in the cache of {limit / _GB:.3g} GB, of which running "
            f"processes use {left / _GB:.3g} GB",
            field="LOOPWRIGHT_CACHE_GB",
            mend="raise it, or unset it for a cache without a limit",
        )


def _evict(wanted: int) -> int:
    """Remove what no process uses, what was used least recently first, until `wanted` bytes are free; how many are."""
    before, freed = _total(), 0
    for path in sorted(_copies().iterdir(), key=_last_used):
        if freed >= wanted:
            break
        digest = path.name.partition(".")[0]
        with _free(_locks() / digest) as idle, _free(_locks() / f"{digest}.used") as unused:
            if idle and unused:
                remove(path)
                freed = before - _total()  # nothing yet, where another copy has the same files
    return freed


def _total() -> int:
    counted: set[tuple[int, int]] = set()
    return sum(_size(path, counted) for path in _copies().iterdir())


def _size(path: Path, counted: set[tuple[int, int]]) -> int:
    """Bytes of a copy, or those that one on its way will have; of files with several names, such as those of a remote
    model, that were not `counted` yet."""
    if path.name.endswith(_PARTIAL):
        return int(path.name.split(".")[-2])
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(FileNotFoundError):  # it is being removed
            state = file.stat()
            if file.is_file() and (state.st_dev, state.st_ino) not in counted:
                counted.add((state.st_dev, state.st_ino))
                total += state.st_size
    return total


def _last_used(path: Path) -> float:
    for file in (_locks() / f"{path.name.partition('.')[0]}.used", path):
        with suppress(FileNotFoundError):
            return file.stat().st_mtime
    return 0.0


def _copies() -> Path:
    return cache_folder() / "artifacts"


def _locks() -> Path:
    return cache_folder() / "locks"


def _make_folders() -> None:
    for folder in (_copies(), _locks()):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, waiting for it by asking again: a wait outside the main thread could not be interrupted."""
    while True:
        with _free(path) as free:
            if free:
                yield
                return
        time.sleep(_POLL_S)


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    """Whether a lock could be taken; held within the block if so."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = False
        else:
            taken = True
        yield taken


def _full(target: Path, size: int) -> UserError:
    return UserError(
        f"the disk beneath {target.parent} is full: {size / _GB:.3g} GB are to be copied there",
        field="store",
        mend="free some space, or let the cache lie elsewhere (LOOPWRIGHT_HOME)",
    )
