"""From a model's name to its shape: the table of public models, a folder's config.json, or the hub's."""

import difflib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from tasks.base_model import ModelConfig
from tasks.core.errors import UserError
from tasks.core.remote_models import is_remote, read_remote
from tasks.plan.architecture import Architecture, Family

_FAMILIES: tuple[str, ...] = get_args(Family)


@cache
def known_architectures() -> dict[str, Architecture]:
    """The public models whose shapes come along, by name and by the hub's names."""
    table = yaml.safe_load(Path(__file__).with_name("architectures.yaml").read_text(encoding="utf-8"))
    found: dict[str, Architecture] = {}
    for name, facts in table.items():
        hub = facts.pop("hub")
        found |= dict.fromkeys([name, *hub], Architecture.model_validate(facts))
    return found


def architecture_of(model: ModelConfig, *, field: str) -> Architecture:
    """The shape of a model; no weights are needed, and none are read.

    Raises UserError, naming `field`, for a model that is neither known, nor a folder (`s3://…` too) with a
    config.json, nor on the hub, and for an architecture that the plan cannot count.
    """
    known = known_architectures()
    folder = Path(model.model).expanduser()
    if not folder.exists() and (model.model in known or model.model.lower() in known):
        return known.get(model.model) or known[model.model.lower()]
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no config.json", field=field, mend="give the folder `save_pretrained` wrote"
        )
    if not folder.exists() and model.model.count("/") != 1 and not is_remote(model.model):
        near = difflib.get_close_matches(model.model.lower(), known, n=3, cutoff=0.4)
        raise UserError(
            f"there is no model {model.model}",
            field=field,
            mend=(f"did you mean {', '.join(near)}? " if near else "")
            + "give a folder with a config.json, a hub id, or one of "
            + ", ".join(name for name in known if "/" not in name),
        )
    return from_config(_read_config(model, folder, field), field=field)


def from_config(config: Any, *, field: str) -> Architecture:
    """The shape that a transformers configuration describes. Raises UserError for a type that the plan cannot count."""
    text = config.get_text_config(decoder=True)
    kind = text.model_type
    if kind not in _FAMILIES:
        raise _uncounted(f"a model of type {kind}", field)
    heads, hidden = text.num_attention_heads, text.hidden_size
    facts = {
        "family": kind,
        "hidden": hidden,
        "layers": text.num_hidden_layers,
        "heads": heads,
        "head_size": getattr(text, "head_dim", None) or hidden // heads,
        "vocabulary": text.vocab_size,
        "tied": bool(text.tie_word_embeddings),
        "context": getattr(text, "max_position_embeddings", None),
    }
    if kind == "falcon":
        if not (text.new_decoder_architecture and text.num_ln_in_parallel_attn in (None, 2)) or text.alibi:
            raise _uncounted("a Falcon of the first architecture", field)
        bias = bool(text.bias)
        facts |= {"kv_heads": text.num_kv_heads, "intermediate": text.ffn_hidden_size}
        facts |= {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bias}
    else:
        bias = bool(getattr(text, "attention_bias", False))
        facts |= {"kv_heads": getattr(text, "num_key_value_heads", None) or heads}
        facts |= {"intermediate": text.intermediate_size, "qkv_bias": bias or kind == "qwen2"}
        facts |= {"output_bias": bias, "mlp_bias": bool(getattr(text, "mlp_bias", False))}
    return Architecture.model_validate(facts)


def _uncounted(what: str, field: str) -> UserError:
    return UserError(
        f"{what} cannot be planned for yet", field=field, mend=f"the plan counts {', '.join(_FAMILIES)}"
    )


def _read_config(model: ModelConfig, path: Path, field: str) -> Any:
    """transformers' configuration: no code that comes with a model is ever run for a plan."""
    from transformers import AutoConfig

    try:
        if is_remote(model.model):
            with tempfile.TemporaryDirectory() as scratch:
                content = read_remote(model.model, "config.json", field=field)
                (Path(scratch) / "config.json").write_bytes(content)
                return AutoConfig.from_pretrained(scratch)
        if path.is_file():
            return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        if path.is_dir():
            return AutoConfig.from_pretrained(path)
        return AutoConfig.from_pretrained(model.model, revision=model.revision or None)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the configuration of {model.model} cannot be read: {str(error).splitlines()[0]}",
            field=field,
            mend="check the name and the network, or name a public model of the same shape: "
            + ", ".join(name for name in known_architectures() if "/" not in name),
        ) from error
