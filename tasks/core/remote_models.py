"""Models in an object store (`s3://…`): looked at from afar, and fetched into the local cache by what they hold."""

import hashlib
import shutil
from pathlib import Path

from tasks.core.artifact_cache import bring, held
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.refusals import mendable
from tasks.core.store import link_or_copy
from tasks.core.transfers import RemoteFile, download, remote_files


def is_remote(model: str) -> bool:
    """Whether a model is named by an address, and not as a folder, a hub id or a registered one (`models:/`)."""
    return "://" in model


def remote_fingerprint(address: str, *, field: str, needed: tuple[str, ...] = ()) -> str:
    """What changes with the files of a model's folder, read from one listing of it.

    Raises UserError, which names `field`, where nothing is there, the store refuses, or no file ends as `needed` says.
    """
    found, _ = _listed(address, field)
    for end in needed:
        if not any(one.name.endswith(end) for one in found):
            raise UserError(
                f"{address} holds no {end}",
                field=field,
                mend="give the address of the folder that `save_pretrained` wrote",
            )
    return _fingerprint(found)


def remote_model(address: str, *, field: str) -> tuple[Path, str]:
    """The folder of a model on this machine, and its digest. Raises UserError as `remote_fingerprint` does."""
    found, files = _listed(address, field)
    name = hashlib.sha256(f"{address}\n{_fingerprint(found)}".encode()).hexdigest()
    with mendable(address, field), held(name) as arrived:
        if not arrived.exists():
            bring(arrived, sum(one.size for one in found), lambda place: _get(files, found, place))
        digest = folder_digest(arrived)
        with held(digest) as folder:  # where `fetch` looks for it
            if not folder.exists():
                bring(folder, 0, lambda place: _link(arrived, place))
    return folder, digest


def read_remote(address: str, name: str, *, field: str) -> bytes:
    """The bytes of a small file of a model's folder. Raises UserError as `remote_fingerprint` does."""
    import fsspec

    try:
        with mendable(address, field), fsspec.open(f"{address.rstrip('/')}/{name}") as file:
            content: bytes = file.read()
    except FileNotFoundError as error:
        raise _missing(f"{address}/{name}", field) from error
    return content


def _listed(address: str, field: str) -> tuple[list[RemoteFile], object]:
    import fsspec

    if address.startswith(("http://", "https://")):
        raise UserError(
            f"{address} is a web page, and no folder that can be listed",
            field=field,
            mend="give the hub id (owner/name), a folder, or an fsspec address such as s3://bucket/prefix",
        )
    try:
        with mendable(address, field):
            files, place = fsspec.core.url_to_fs(address)
            return remote_files(files, place), files
    except FileNotFoundError as error:
        raise _missing(address, field) from error
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{address} is not an address that can be opened: {error}",
            field=field,
            mend="give a folder, a hub id, or an fsspec address such as s3://bucket/prefix",
        ) from error


def _missing(address: str, field: str) -> UserError:
    return UserError(f"there is nothing at {address}", field=field, mend="correct the address")


def _fingerprint(found: list[RemoteFile]) -> str:
    return "\n".join(f"{one.name} {one.size} {one.etag}" for one in found)


def _get(files: object, found: list[RemoteFile], place: Path) -> None:
    download(files, found, place)


def _link(source: Path, place: Path) -> None:
    shutil.copytree(source, place, copy_function=link_or_copy)
