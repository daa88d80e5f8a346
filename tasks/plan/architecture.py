"""The shape of a decoder: what its size, its adapters and its activations are counted from, without its weights."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.errors import UserError
from tasks.sft.adapter import ALL_LINEAR, AdapterConfig

Family = Literal["llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "phi3", "falcon"]


class Linear(NamedTuple):
    """A matrix of every layer, by the end of its path."""

    name: str
    inputs: int
    outputs: int
    bias: bool


class Architecture(BaseModel):
    """A dense decoder with rotary positions: Llama and its like (Phi 3 joins the matrices that read one input), or
    Falcon (layer norms, no gate, attention and MLP side by side)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Family
    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_size: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    vocabulary: int = Field(ge=1)
    tied: bool
    """The output layer is the embedding's matrix."""
    qkv_bias: bool = False
    output_bias: bool = False
    """Of the attention's output projection."""
    mlp_bias: bool = False
    context: int | None = None
    """Longest sequence in tokens."""

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation with a second projection (SwiGLU)."""
        return self.family != "falcon"

    @property
    def query_width(self) -> int:
        """Numbers per token in the queries, and in the attention's result."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Numbers per token in the keys of a layer, and in its values."""
        return self.kv_heads * self.head_size

    @property
    def attention_readers(self) -> tuple[str, ...]:
        """The matrices that read the attention's input."""
        joined = {"falcon": "query_key_value", "phi3": "qkv_proj"}.get(self.family)
        return (joined,) if joined else ("q_proj", "k_proj", "v_proj")

    @property
    def mlp_readers(self) -> tuple[str, ...]:
        """The matrices that read the MLP's input."""
        joined = {"falcon": "dense_h_to_4h", "phi3": "gate_up_proj"}.get(self.family)
        return (joined,) if joined else ("gate_proj", "up_proj")

    def linears(self) -> tuple[Linear, ...]:
        """The matrices of one layer, in the order of the forward pass."""
        width, q, kv, wide = self.hidden, self.query_width, self.kv_width, self.intermediate
        if self.family == "falcon":
            return (
                Linear("query_key_value", width, q + 2 * kv, self.qkv_bias),
                Linear("dense", q, width, self.output_bias),
                Linear("dense_h_to_4h", width, wide, self.mlp_bias),
                Linear("dense_4h_to_h", wide, width, self.mlp_bias),
            )
        if self.family == "phi3":
            return (
                Linear("qkv_proj", width, q + 2 * kv, self.qkv_bias),
                Linear("o_proj", q, width, self.output_bias),
                Linear("gate_up_proj", width, 2 * wide, self.mlp_bias),
                Linear("down_proj", wide, width, self.mlp_bias),
            )
        return (
            Linear("q_proj", width, q, self.qkv_bias),
            Linear("k_proj", width, kv, self.qkv_bias),
            Linear("v_proj", width, kv, self.qkv_bias),
            Linear("o_proj", q, width, self.output_bias),
            Linear("gate_proj", width, wide, self.mlp_bias),
            Linear("up_proj", width, wide, self.mlp_bias),
            Linear("down_proj", wide, width, self.mlp_bias),
        )

    def matrix_parameters(self) -> int:
        """Parameters of the layers' matrices, which alone are quantised to 4 bits."""
        return self.layers * sum(linear.inputs * linear.outputs for linear in self.linears())

    def head_parameters(self) -> int:
        """Parameters of the output layer that are its own."""
        return 0 if self.tied else self.vocabulary * self.hidden

    def body_parameters(self) -> int:
        """Parameters without the output layer: what a reward model or a value model is made of."""
        return self.vocabulary * self.hidden + self.layers * self.block_parameters() + self._norm()

    def block_parameters(self) -> int:
        """Parameters of one layer: its matrices, their biases, and its norms."""
        matrices = sum(linear.inputs * linear.outputs for linear in self.linears())
        biases = sum(linear.outputs for linear in self.linears() if linear.bias)
        return matrices + biases + 2 * self._norm() + (2 * self.head_size if self.family == "qwen3" else 0)

    def _norm(self) -> int:
        return self.hidden * (2 if self.family == "falcon" else 1)  # a layer norm has a bias as well

    def parameters(self) -> int:
        """All parameters of the causal language model."""
        return self.body_parameters() + self.head_parameters()

    def adapted(self, config: AdapterConfig, *, field: str) -> tuple[Linear, ...]:
        """The matrices of a layer that an adapter is put on. Raises UserError, naming `field`, for an unknown name."""
        if config.modules == ALL_LINEAR:
            return self.linears()
        names = [name.strip() for name in config.modules.split(",")]
        known = [linear.name for linear in self.linears()]
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise UserError(
                f"the plan knows no module named {', '.join(unknown)} in a layer of the family {self.family}",
                field=field,
                mend=f"choose among {', '.join(known)}, or {ALL_LINEAR}",
            )
        return tuple(linear for linear in self.linears() if linear.name in names)

    def adapter_parameters(self, rank: int, adapted: Sequence[Linear]) -> int:
        """Parameters of a LoRA adapter: of every matrix (in, out) rank * (in + out) (arXiv 2106.09685, section 4.1)."""
        return self.layers * rank * sum(linear.inputs + linear.outputs for linear in adapted)
