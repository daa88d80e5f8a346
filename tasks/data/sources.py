"""From an address to bytes: files and folders on a disk or behind any fsspec address."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tasks.core.errors import UserError
from tasks.core.refusals import clocks_apart, error_code
from tasks.core.settings import transfers_at_once
from tasks.data.formats import SUFFIXES, suffix


@dataclass(frozen=True)
class DataFile:
    """A file with an ending that is known."""

    name: str
    """Its address, as a user would write it."""
    path: str
    size: int
    files: Any
    """The fsspec file system it lies on."""

    @property
    def remote(self) -> bool:
        """Whether every read goes over a network."""
        return "://" in self.name and not self.name.startswith(("file://", "local://"))


def data_files(address: str, field: str) -> list[DataFile]:
    """The file at `address`, or every data file in the folder there, in order of name; nothing of them is read.

    Raises UserError, for the configuration field `field`, when there is none or no permission.
    """
    with mendable_source(address, field):
        from fsspec.core import url_to_fs

        files, path = url_to_fs(address)
        files.invalidate_cache()
        try:
            entry = files.info(path)
        except FileNotFoundError as error:
            raise _missing(address, field, files, path) from error
        if entry["type"] != "directory":
            return [DataFile(address, path, int(entry["size"] or 0), files)]
        found = []
        for one in sorted(files.ls(path, detail=True), key=lambda one: str(one["name"])):
            name = one["name"].rstrip("/").rsplit("/", 1)[-1]
            if suffix(name) in SUFFIXES:
                place = f"{address.rstrip('/')}/{name}"
                found.append(DataFile(place, url_to_fs(place)[1], int(one["size"] or 0), files))
        if not found:
            raise UserError(
                f"the folder {address} holds no data file",
                field=field,
                mend=f"files that are read end in {', '.join(SUFFIXES)}, each also with .gz",
            )
        return found


def read_files(address: str, field: str) -> list[tuple[str, bytes]]:
    """Name and bytes of the files at `address`. Raises UserError as `data_files` does."""
    found = data_files(address, field)
    return list(zip((file.name for file in found), contents(found, field), strict=True))


def contents(found: Sequence[DataFile], field: str) -> list[bytes]:
    """The bytes of files of one file system; remote ones come several at once."""
    if not found:
        return []
    files = found[0].files
    with mendable_source(found[0].name, field):
        if len(found) > 1 and found[0].remote:
            # One by one: `cat` of several takes brackets in names for patterns.
            with ThreadPoolExecutor(transfers_at_once()) as threads:
                return list(threads.map(files.cat_file, [file.path for file in found]))
        return [files.cat_file(file.path) for file in found]


def _missing(address: str, field: str, files: Any, path: str) -> UserError:
    parent, _, name = path.rstrip("/").rpartition("/")
    try:
        beside = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in files.ls(parent, detail=False)]
    except OSError:  # the folder is missing too, or may not be listed: there is no name to suggest
        beside = []
    close = get_close_matches(name, beside, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "check the folder or bucket, and the spelling"
    return UserError(f"{address} does not exist", field=field, mend=hint)


@contextmanager
def mendable_source(address: str, field: str) -> Iterator[None]:
    """Turn the refusals of a disk, an object store or a web server into messages that name the mend."""
    from aiohttp import ClientError as WebError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except (PermissionError, NoCredentialsError) as error:
        if error_code(error) == "RequestTimeTooSkewed":
            raise clocks_apart(address, field) from error
        raise UserError(
            f"no permission to read {address}: {error}",
            field=field,
            mend="use a file you may read, or set the store's credentials (for S3: AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY)",
        ) from error
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{address} is not an address that can be opened: {error}",
            field=field,
            mend="give a file, a folder, hub:owner/name, or an fsspec address such as s3://bucket/rows.jsonl",
        ) from error
    except (OSError, BotoCoreError, ClientError, WebError) as error:
        raise UserError(
            f"{address} cannot be read: {error}",
            field=field,
            mend="check that the address is right and its server reachable (for S3: AWS_ENDPOINT_URL)",
        ) from error
