"""The artifact store: one immutable folder per stage result, on a local disk or any fsspec address (`s3://…`).

    <root>/<stage>/<key>/manifest.json      written last: without it the result does not exist
    <root>/<stage>/<key>/<attempt>/…        the files; every attempt has a folder of its own
    <root>/<stage>/<key>/used-by/<run>      empty: a run that computed the result or read it

The manifest names its attempt, so that two runs that compute one stage at once, on two machines even, can never
mix their files: whichever manifest stands in the end belongs to one whole attempt.
"""

import hashlib
import os
import re
import shutil
import threading
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.core.artifact_cache import bring, held, remove
from tasks.core.digests import file_digest, folder_files, path_digest
from tasks.core.errors import DamagedArtifact, UserError
from tasks.core.hub import SCHEME, fetch_from_hub
from tasks.core.references import Reference
from tasks.core.refusals import mendable
from tasks.core.settings import cache_folder
from tasks.core.transfers import download, remote_files, upload

MANIFEST, USERS = "manifest.json", "used-by"
_ROOT = "store:"
"""Stands for the store's root in a manifest, so that a store may be moved or mounted elsewhere."""
_NO_STORE = re.compile(r"(https?|ftp|data|reference)://|\w+:/*$")
"""Addresses that can be read at most, and those that name no bucket."""


class File(BaseModel):
    """One file of a manifest; `name` is relative to the attempt's folder."""

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a stage left behind: its files and its result (a JSON value)."""

    stage: str
    key: str
    attempt: str
    files: list[File]
    result: dict[str, Any]


class Store:
    """Results of stages beneath one root."""

    def __init__(self, root: str) -> None:
        import fsspec

        self.remote = "://" in root and not root.startswith("file://")
        root = root.removeprefix("file://")
        if _NO_STORE.match(root):
            raise UserError(
                f"{root} cannot be written to as a store is",
                field="store",
                mend="give a folder, or an address with a bucket such as s3://bucket/prefix",
            )
        self.root = root.rstrip("/") if self.remote else str(Path(root).expanduser().absolute())
        try:
            self._files = fsspec.core.url_to_fs(self.root)[0]
        except (ValueError, ImportError) as error:
            raise UserError(
                f"{root} is not an address that can be opened: {error}",
                field="store",
                mend="give a folder, or an fsspec address such as s3://bucket/prefix",
            ) from error

    def check(self, field: str = "store") -> None:
        """Raise UserError, of the field, when nothing can be written here, before any work is done."""
        probe = f"{self.root}/.probe-{uuid.uuid4().hex}"
        with mendable(self.root, field):
            try:
                self._make_folder(self.root)
                self._files.pipe_file(probe, b"loopwright")
                self._files.rm_file(probe)
            except FileNotFoundError as error:
                raise UserError(
                    f"{self.root} cannot be written to: {error}",
                    field=field,
                    mend="check the spelling; a bucket has to exist",
                ) from error

    def find(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a finished result, or None; a manifest that cannot be read counts as none."""
        try:
            with mendable(self.root):
                text = self._files.cat_file(f"{self._folder(stage, key)}/{MANIFEST}")
        except FileNotFoundError:
            return None
        try:
            manifest = Manifest.model_validate_json(text)
        except ValueError:
            return None
        manifest.result = relocate(manifest.result, _ROOT, self.root)
        return manifest

    def newest(self, stage: str) -> Manifest | None:
        """The manifest of a stage that was written last, or None when it has left none."""
        with mendable(self.root):
            found = self._files.glob(f"{self.root}/{stage}/*/{MANIFEST}")
            newest = max(found, key=self._files.modified, default=None)
        return self.find(stage, Path(newest).parent.name) if newest else None

    def verify(self, manifest: Manifest) -> None:
        """Raise DamagedArtifact, naming the file, unless every file of the result is there and whole.

        Local files are hashed; remote ones are compared by size here and hashed when they are fetched.
        """
        folder = self.attempt_uri(manifest)
        with mendable(self.root):
            self._files.invalidate_cache()
            for file in manifest.files:
                address = f"{folder}/{file.name}"
                if not self._files.exists(address):
                    raise DamagedArtifact(folder, file.name, "the file is missing")
                size = self._files.size(address)
                if size != file.size:
                    raise DamagedArtifact(folder, file.name, f"{size} bytes instead of {file.size}")
                if not self.remote and file_digest(Path(address)) != file.sha256:
                    raise DamagedArtifact(folder, file.name, "its bytes changed since they were written")

    def condemn(self, stage: str, key: str) -> None:
        """Make a result not exist any more (its manifest goes, its files stay for inspection)."""
        address = f"{self._folder(stage, key)}/{MANIFEST}"
        if self._files.exists(address):
            self._files.rm_file(address)

    def use(self, stage: str, key: str, run_id: str) -> None:
        """Note that a run uses a result, before it looks whether that is there: what removes unused ones waits."""
        folder = f"{self._folder(stage, key)}/{USERS}"
        with mendable(self.root):
            self._make_folder(folder)
            self._files.pipe_file(f"{folder}/{run_id}", b"")

    def exists(self) -> bool:
        """Whether there is anything at the root."""
        with mendable(self.root):
            return bool(self._files.exists(self.root))

    def listing(self, folder: str = "") -> dict[str, tuple[int, float]]:
        """Every file beneath the root, or beneath a folder there, by its name beneath the root, with its size and when
        it was written (seconds)."""
        with mendable(self.root):
            self._files.invalidate_cache()
            found = self._files.find(f"{self.root}/{folder}".rstrip("/"), detail=True)
        root = self._files._strip_protocol(self.root)
        return {
            name[len(root) + 1 :]: (entry["size"], _written(entry))
            for name, entry in found.items()
            if entry["type"] == "file"
        }

    def read(self, name: str) -> bytes:
        """The bytes of a small file by its name beneath the root. Raises FileNotFoundError."""
        with mendable(self.root):
            found: bytes = self._files.cat_file(f"{self.root}/{name}")
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        with mendable(self.root):
            self._write_last(f"{self.root}/{name}", content)

    def put(self, folder: Path, name: str, stop: threading.Event | None = None) -> dict[str, str]:
        """Copy a local folder beneath the root of a remote store; SHA-256 by file. Ends early, by an OSError, when
        `stop` is set."""
        with mendable(self.root):
            return upload(self._files, folder, f"{self.root}/{name}", stop)

    def get(self, name: str, target: Path) -> dict[str, str]:
        """Copy a folder of a remote store to a local one; SHA-256 by file. Raises FileNotFoundError."""
        with mendable(self.root):
            return download(self._files, remote_files(self._files, f"{self.root}/{name}"), target)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; one that is gone is no error."""
        address = f"{self.root}/{name}"
        with mendable(self.root), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            if self.remote:
                # One by one: some object stores refuse to delete several at once.
                for file in self._files.find(address):
                    self._files.rm_file(file)
            else:
                self._files.rm(address, recursive=True)

    def publish(self, stage: str, key: str, out: Path, result: dict[str, Any]) -> Manifest:
        """Move the files of `out` into the store and write the manifest last.

        References in `result` that lie beneath `out` are rewritten to where they lie afterwards. A result that was
        published meanwhile by somebody else stays, and is returned.
        """
        attempt = uuid.uuid4().hex[:12]
        folder = f"{self._folder(stage, key)}/{attempt}"
        moved = relocate(result, str(out), folder)
        with mendable(self.root):
            self._make_folder(folder)
            if self.remote:
                digests = upload(self._files, out, folder)
            else:
                shutil.copytree(out, folder, dirs_exist_ok=True, copy_function=link_or_copy)
                digests = {path.relative_to(out).as_posix(): file_digest(path) for path in folder_files(out)}
            files = [
                File(name=name, size=(out / name).stat().st_size, sha256=digest)
                for name, digest in digests.items()
            ]
            manifest = Manifest(stage=stage, key=key, attempt=attempt, files=files, result=moved)
            if (existing := self.find(stage, key)) is not None:
                self.remove(f"{stage}/{key}/{attempt}")
                return existing
            portable = manifest.model_copy(update={"result": relocate(moved, self.root, _ROOT)})
            self._write_last(
                f"{self._folder(stage, key)}/{MANIFEST}", portable.model_dump_json(indent=1).encode()
            )
        return manifest

    def attempt_uri(self, manifest: Manifest) -> str:
        """Where the files of a manifest lie."""
        return f"{self._folder(manifest.stage, manifest.key)}/{manifest.attempt}"

    def work_folder(self, stage: str, key: str) -> Path:
        """The local folder a stage works in; it outlives a killed run, so that training resumes from it."""
        if not self.remote:
            return Path(self.root) / "work" / stage / key
        place = hashlib.sha256(self.root.encode()).hexdigest()[:12]
        return cache_folder() / "work" / place / stage / key

    def _folder(self, stage: str, key: str) -> str:
        return f"{self.root}/{stage}/{key}"

    def _make_folder(self, folder: str) -> None:
        # S3 has no folders, and s3fs would make the bucket itself, however it is misspelled.
        if not self.root.startswith("s3"):
            self._files.makedirs(folder, exist_ok=True)

    def _write_last(self, address: str, content: bytes) -> None:
        if self.remote:
            self._files.pipe_file(address, content)  # an object appears whole or not at all
            return
        partial = f"{address}.{uuid.uuid4().hex}"
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, address)


def fetch(ref: Reference) -> Path:
    """The local path of a reference's file or folder, downloaded if it lies elsewhere, its digest checked.

    Raises DamagedArtifact when the bytes are not those the reference names; UserError for a hub model that cannot be
    had as it was.
    """
    if ref.uri.startswith(SCHEME):
        return fetch_from_hub(ref.uri, ref.digest, code=bool(ref.facts.get("trust_remote_code", False)))
    if "://" not in ref.uri:
        path = Path(ref.uri)
        if not path.exists():
            raise DamagedArtifact(ref.uri, path.name, _NOT_HERE)
        if path_digest(path) != ref.digest:
            raise DamagedArtifact(ref.uri, path.name, _CHANGED)
        return path
    with held(ref.digest) as path:
        if not path.exists():
            _download(ref, path)
        elif path_digest(path) != ref.digest:
            remove(path)
            raise DamagedArtifact(ref.uri, path.name, _CHANGED)
    return path


_CHANGED = "its bytes are not those that were written"
_NOT_HERE = "it is not there; a folder that is named as a model has to lie at that place on every machine, or at s3://…"


def _download(ref: Reference, target: Path) -> None:
    """Put a remote artifact at `target`, whole or not at all."""
    import fsspec

    def copy(partial: Path) -> None:
        if _joined(download(files, found, partial)) != ref.digest:
            raise DamagedArtifact(ref.uri, target.name, _CHANGED)

    try:
        with mendable(ref.uri):
            files, address = fsspec.core.url_to_fs(ref.uri)
            found = remote_files(files, address)
            bring(target, sum(one.size for one in found), copy)
    except FileNotFoundError as error:
        raise DamagedArtifact(ref.uri, address, "it is not there") from error


def _joined(digests: dict[str, str]) -> str:
    """What `path_digest` says of the file, or the folder, whose files have these digests."""
    if set(digests) == {""}:
        return digests[""]
    return hashlib.sha256(
        "".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()
    ).hexdigest()


def _written(entry: dict[str, Any]) -> float:
    """When a file was written, as the file system or the object store says."""
    when = entry.get("mtime", entry.get("LastModified"))
    return when.timestamp() if isinstance(when, datetime) else float(when or 0.0)


def relocate(value: Any, old: str, new: str) -> Any:
    """A JSON value whose paths beneath `old` lie beneath `new`."""
    if isinstance(value, dict):
        return {key: relocate(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [relocate(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(old + "/")):
        return new + value[len(old) :]
    return value


def link_or_copy(source: str, target: str) -> str:
    """Link a file, or copy it where the file system has no hard links, or is another one; `copytree` takes it."""
    try:
        os.link(source, target)  # no second copy of the weights on one file system
    except OSError:
        shutil.copy2(source, target)
    return target
