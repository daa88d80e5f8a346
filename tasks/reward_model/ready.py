"""A reward model that was trained before, from its folder."""

import json
from pathlib import Path

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.references import ModelRef
from tasks.core.remote_models import is_remote, remote_model
from tasks.reward_model.normalisation import read_normalisation

_FIELD = "reward.model"
_ADAPTER, _WEIGHTS = "adapter_config.json", "config.json"


def check_ready(address: str) -> None:
    """Raise UserError for a folder that holds no reward model as the stage `reward_model` writes it."""
    folder = _folder(address)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", field=_FIELD, mend="correct the path")
    read_normalisation(folder)
    if not ((folder / _WEIGHTS).exists() or is_adapter(address)):
        raise UserError(
            f"{folder} holds neither {_WEIGHTS} nor {_ADAPTER}",
            field=_FIELD,
            mend="give the folder that the stage reward_model wrote",
        )


def is_adapter(address: str) -> bool:
    """Whether the folder holds an adapter, and not full weights."""
    return (_folder(address) / _ADAPTER).exists()


def check_unmerged(address: str, base: ModelRef) -> None:
    """Raise UserError for an adapter that was trained on `base` where fine-tuning will be merged into that, so that no
    role lies on it any more. Whether one of other weights fits is known only when they are merged (`ready_model`)."""
    if is_adapter(address) and _trained_on(_folder(address)) == f"sha256:{base.digest}":
        name = base.facts.get("name", base.uri)
        raise UserError(
            f"the reward adapter {address} was trained on {name} as it is, but here the base is {name} fine-tuned and "
            "merged",
            field=_FIELD,
            mend="set sft to false, or merge the reward adapter into its base: full weights go with any policy",
        )


def ready_model(address: str, base: ModelRef | None) -> ModelRef:
    """The reward model in the folder; `base` is what it lies on if it is an adapter.

    Raises UserError for an adapter of another base, of which only the digest is known.
    """
    folder = _folder(address)
    facts = {"name": address}
    uri = address if is_remote(address) else str(folder)
    ref = ModelRef(uri=uri, digest=folder_digest(folder), facts=facts)
    if not is_adapter(address):
        return ref
    named = _trained_on(folder)
    if base is None or named != f"sha256:{base.digest}":
        here = "none" if base is None else f"{base.facts.get('name', base.uri)} (sha256:{base.digest[:12]})"
        raise UserError(
            f"the reward adapter {address} was trained on the weights {named[:19]}, but the base here is {here}",
            field=_FIELD,
            mend="name the base that it was trained on, or merge it into that: full weights go with any policy",
        )
    return ref.model_copy(update={"base": base})


def _trained_on(folder: Path) -> str:
    return str(json.loads((folder / _ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path"))


def _folder(address: str) -> Path:
    if is_remote(address):
        return remote_model(address, field=_FIELD)[0]
    return Path(address).expanduser().absolute()
