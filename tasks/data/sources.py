"""From an address to bytes: files and folders on a disk or behind any fsspec address."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from tasks.core.errors import UserError
from tasks.core.refusals import clocks_apart, error_code
from tasks.data.formats import SUFFIXES, suffix


def read_files(address: str, field: str) -> list[tuple[str, bytes]]:
    """Name and bytes of the file at `address`, or of every data file in the folder there, in order of name.

    Raises UserError, for the configuration field `field`, when there is nothing to read or no permission.
    """
    with _mendable(address, field):
        from fsspec.core import url_to_fs

        files, path = url_to_fs(address)
        files.invalidate_cache()
        try:
            is_folder = files.info(path)["type"] == "directory"
        except FileNotFoundError as error:
            raise _missing(address, field, files, path) from error
        names = [address]
        if is_folder:
            entries = [entry.rsplit("/", 1)[-1] for entry in files.ls(path, detail=False)]
            names = [
                f"{address.rstrip('/')}/{entry}" for entry in sorted(entries) if suffix(entry) in SUFFIXES
            ]
        if not names:
            raise UserError(
                f"the folder {address} holds no data file",
                field=field,
                mend=f"files that are read end in {', '.join(SUFFIXES)}, each also with .gz",
            )
        return [(name, files.cat_file(url_to_fs(name)[1])) for name in names]


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
def _mendable(address: str, field: str) -> Iterator[None]:
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
