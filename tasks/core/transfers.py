"""Files up to an object store and down from it: several at once, large ones in parts, digests taken meanwhile.

For S3 it is s3transfer that moves the bytes, with the address and the keys that s3fs has for the small requests: it
sends large files in parts, reads them in ranges, keeps few parts in memory and, with botocore, tries what failed in
passing again (500, 503, a connection that is cut or silent), waiting longer every time. Other object stores are
written and read by fsspec, several files at once.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tasks.core.digests import file_digest, folder_files
from tasks.core.settings import transfers_at_once

PART = 16 << 20
"""Bytes of a part of a large file; more where a file would have too many."""
MOST_PARTS = 900
"""Amazon takes 10,000 parts, Swift 1,000."""
READ_TIMEOUT_S, CONNECT_TIMEOUT_S = 60.0, 10.0
"""How long a connection may be silent before the request is made again."""
_POLL_S = 0.2
ATTEMPTS = 8
"""How often a request is made, waiting up to 20 seconds between two: together up to a minute and a half."""


@dataclass(frozen=True)
class RemoteFile:
    """A file beneath an address; `name` is relative to it, and empty when the address is that file's own."""

    name: str
    address: str
    size: int
    etag: str = ""
    """On S3; elsewhere what the store has in its place."""


def remote_files(files: Any, address: str) -> list[RemoteFile]:
    """Every file beneath an address, or the one at it, in order of name, by one listing.

    `files` is the fsspec file system of the address. Raises FileNotFoundError when there is none.
    """
    files.invalidate_cache()
    root = files._strip_protocol(address).rstrip("/")
    found = [
        RemoteFile(path[len(root) + 1 :], path, int(entry["size"]), _version(entry))
        for path, entry in sorted(files.find(address, detail=True).items())
        if entry["type"] == "file" and (path == root or path.startswith(f"{root}/"))
    ]
    if not found:
        raise FileNotFoundError(address)
    return found


def _version(entry: Mapping[str, Any]) -> str:
    """What changes with a file's content, by the names that object stores have for it; S3's is its ETag."""
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return next((str(entry[name]) for name in names if entry.get(name)), "")


def upload(files: Any, folder: Path, address: str, stop: threading.Event | None = None) -> dict[str, str]:
    """Copy every file of a local folder beneath an address; SHA-256 by name, taken while they are on their way.

    Ends early, by an InterruptedError, when `stop` is set.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in folder_files(folder)}
    if _speaks_s3(files):
        with _manager(files, max((path.stat().st_size for path in paths.values()), default=0)) as manager:
            waiting = [
                manager.upload(str(path), *_bucket_and_key(files, f"{address}/{name}"))
                for name, path in paths.items()
            ]
            digests = {name: file_digest(path) for name, path in paths.items()}
            for one in waiting:
                while stop and not one.done():
                    if stop.wait(_POLL_S):
                        raise InterruptedError("the copy was stopped")
                one.result()
        files.invalidate_cache()
        return digests
    with ThreadPoolExecutor(transfers_at_once()) as threads:
        sent = [
            threads.submit(files.put_file, str(path), f"{address}/{name}") for name, path in paths.items()
        ]
        digests = {name: file_digest(path) for name, path in paths.items()}
        for future in sent:
            future.result()
    return digests


def download(files: Any, found: Sequence[RemoteFile], target: Path) -> dict[str, str]:
    """Copy files to `target`, a folder, or the file itself when it is a single one with an empty name.

    Returns the SHA-256 of what was received, by name, taken of each file while others are on their way. Raises OSError
    when the local disk refuses, and what the object store raises when a file cannot be had after several tries.
    """
    for folder in {(target / one.name).parent for one in found}:
        folder.mkdir(parents=True, exist_ok=True)
    if _speaks_s3(files):
        return _ranges(files, found, target)

    def get(one: RemoteFile) -> str:
        files.get_file(one.address, str(target / one.name))
        return file_digest(target / one.name)

    with ThreadPoolExecutor(transfers_at_once()) as threads:
        return dict(zip((one.name for one in found), threads.map(get, found), strict=True))


def _ranges(files: Any, found: Sequence[RemoteFile], target: Path) -> dict[str, str]:
    digests: dict[str, str] = {}
    with _manager(files, max(one.size for one in found)) as manager:
        under_way: list[tuple[RemoteFile, BinaryIO, Any]] = []

        def end_first() -> None:
            one, local, future = under_way[0]
            future.result()
            local.close()
            path = target / one.name
            if (size := path.stat().st_size) != one.size:
                raise ConnectionError(f"{one.address}: {size} bytes came, not {one.size}")
            digests[one.name] = file_digest(path)
            under_way.pop(0)

        try:
            for one in found:
                where = _bucket_and_key(files, one.address)
                # A large file's tag from itself: of parts a listing may say something else.
                small = one.size < manager.config.multipart_threshold
                etag = one.etag if small else ""
                etag = etag or manager.client.head_object(Bucket=where[0], Key=where[1])["ETag"]
                local: BinaryIO = (target / one.name).open("wb")
                known = [_Known(one.size, etag)]
                under_way.append((one, local, manager.download(*where, local, subscribers=known)))
                if len(under_way) >= 4 * transfers_at_once():  # every one of them is an open file
                    end_first()
            while under_way:
                end_first()
        except BaseException:
            manager.shutdown(cancel=True)
            for _, local, _ in under_way:
                with suppress(OSError):  # a full disk refuses again, and has been heard
                    local.close()
            raise
    return digests


class _Known:
    """Tells s3transfer what it would ask for.

    That saves a request for every file, and keeps it from a wait for itself: without these two it lets the thread that
    made the first request queue the others, which is never done when the queue is full.
    """

    def __init__(self, size: int, etag: str) -> None:
        self._size, self._etag = size, etag

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self._size)
        future.meta.provide_object_etag(self._etag)

    def on_progress(self, **_: Any) -> None: ...

    def on_done(self, **_: Any) -> None: ...


def _speaks_s3(files: Any) -> bool:
    protocol = files.protocol
    return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


def _bucket_and_key(files: Any, address: str) -> tuple[str, str]:
    bucket, key, _ = files.split_path(address)
    return bucket, key


@contextmanager
def _manager(files: Any, largest: int) -> Iterator[Any]:
    """s3transfer's, for files of at most `largest` bytes. What ends the block cancels what is under way."""
    from s3transfer.exceptions import RetriesExceededError
    from s3transfer.manager import TransferConfig, TransferManager

    at_once = transfers_at_once()
    part = max(PART, -(-largest // MOST_PARTS))
    config = TransferConfig(
        multipart_threshold=part + 1,
        multipart_chunksize=part,
        max_request_concurrency=at_once,
        io_chunksize=1 << 20,
        max_io_queue_size=32,
    )
    try:
        with TransferManager(_client(files, at_once), config) as manager:
            yield manager
    except RetriesExceededError as error:
        raise error.last_exception from error


def _client(files: Any, at_once: int) -> Any:
    """The client that belongs to an s3fs file system, kept with it: to make one takes longer than a small file."""
    wanted = (os.getpid(), at_once, READ_TIMEOUT_S)
    kept = vars(files).get("_transfer_client")
    if kept is None or kept[0] != wanted:
        kept = (wanted, _new_client(files, at_once))
        files._transfer_client = kept
    return kept[1]


def _new_client(files: Any, at_once: int) -> Any:
    """A client for several threads, with the address and the keys of an s3fs file system."""
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    named = {
        "aws_access_key_id": files.key,
        "aws_secret_access_key": files.secret,
        "aws_session_token": files.token,
        "endpoint_url": files.endpoint_url,
    }
    own = {
        "max_pool_connections": at_once + 2,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"mode": "standard", "total_max_attempts": _attempts()},
    }
    if files.anon:
        own["signature_version"] = UNSIGNED
    options = {name: value for name, value in named.items() if value is not None} | files.client_kwargs
    config = Config(**own | files.config_kwargs)
    return botocore.session.Session(**files.kwargs).create_client("s3", config=config, **options)


def _attempts() -> int:
    return int(os.environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS)
