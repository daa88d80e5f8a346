"""Models of the hub, by an address that holds on every machine: `hf://OWNER/NAME@COMMIT`.

What the hub's cache has of a commit hangs on the machine: others may have fetched more of its files. So a digest is
that of the files that a model is loaded from, and the folder is found, or fetched, where it is asked for.
"""

import hashlib
from pathlib import Path

from tasks.core.digests import file_digest, folder_files
from tasks.core.errors import UserError

SCHEME = "hf://"
_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
_CODE = ("*.py",)


def hub_folder(model: str, revision: str = "", *, code: bool = False, here: bool = False) -> Path:
    """The folder of a hub model in the cache, fetched unless it is there; `code` takes the Python files that come with
    it, and `here` asks nobody. Raises what the hub's client raises."""
    from huggingface_hub import snapshot_download

    found = snapshot_download(
        model, revision=revision or None, allow_patterns=_patterns(code), local_files_only=here
    )
    return Path(found)


def hub_address(model: str, folder: Path) -> str:
    """What names the commit that `hub_folder` found, on every machine."""
    return f"{SCHEME}{model}@{folder.name}"


def hub_digest(folder: Path, *, code: bool = False) -> str:
    """As `folder_digest`, over the files that a model is loaded from alone."""
    from huggingface_hub.utils import filter_repo_objects

    files = {path.relative_to(folder).as_posix(): path for path in folder_files(folder)}
    names = filter_repo_objects(files, allow_patterns=_patterns(code))
    return hashlib.sha256(
        "".join(f"{name} {file_digest(files[name])}\n" for name in names).encode()
    ).hexdigest()


def fetch_from_hub(address: str, digest: str, *, code: bool = False) -> Path:
    """The folder behind a `hub_address`, from the hub if this machine has not all of it.

    Raises UserError where it can neither be found nor fetched, and where its files are not those of the digest.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    model, _, commit = address.removeprefix(SCHEME).partition("@")
    try:
        folder = hub_folder(model, commit, code=code, here=True)
        if hub_digest(folder, code=code) == digest:
            return folder
    except LocalEntryNotFoundError:
        pass  # another machine had it
    try:
        folder = hub_folder(model, commit, code=code)
    except unreachable() as error:
        raise UserError(
            f"{model} (commit {commit[:12]}) is not on this machine, and cannot be fetched from the hub "
            f"({type(error).__name__})",
            field="model",
            mend="check the network, unset HF_HUB_OFFLINE, set HF_TOKEN for a private or gated one, or give a folder "
            "that every machine has",
        ) from error
    if hub_digest(folder, code=code) != digest:
        raise UserError(
            f"the files of {model} (commit {commit[:12]}) in {folder} are not those that the run began with",
            field="model",
            mend="remove that folder, so that it is fetched again; offline it may lack some of them",
        )
    return folder


def unreachable() -> tuple[type[BaseException], ...]:
    """What the hub's client raises where the hub is not reached, or refuses. It speaks by httpx or by httpx2, as its
    version has it."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, HfHubHTTPError.__bases__[0])


def _patterns(code: bool) -> list[str]:
    return [*_FILES, *(_CODE if code else ())]
