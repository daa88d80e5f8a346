"""Which pairs a reward model learns from, and how it is trained."""

from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.sft.adapter import AdapterConfig
from tasks.sft.optimiser_config import OptimiserConfig, placed


class PreferenceConfig(Config):
    """Pairs of answers of which one is better: where they are, and in which columns.

    Three forms are read. Columns prompt, chosen and rejected. Columns chosen and rejected alone, each a whole
    dialogue (a transcript "\\n\\nHuman: … \\n\\nAssistant: …", or a list of messages) with one common beginning. Or a
    row per answer with a score; then every answer is preferred to all with a lower score to the same input.
    """

    train: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the pairs to learn from: a file, a folder, `s3://…` or `hub:owner/name`."""
    test: str = Field("", json_schema_extra=PLACEMENT)
    """Address of held-out pairs; empty holds out `test_fraction` of the others."""
    test_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the pairs held out when `test` is empty; a prompt is never on both sides."""
    prompt: str = "prompt"
    """Column of the prompt: a text, a transcript or a list of messages. Not needed where the answers are whole
    dialogues; empty ignores it."""
    chosen: str = Field("chosen", min_length=1)
    """Column of the better answer, or of the dialogue that ends with it."""
    rejected: str = Field("rejected", min_length=1)
    """Column of the worse answer, or of the dialogue that ends with it."""
    input: str = Field("input", min_length=1)
    """Column of the prompt, where every row is an answer with a score."""
    completion: str = Field("completion", min_length=1)
    """Column of the answer, where every row is an answer with a score."""
    score: str = Field("score", min_length=1)
    """Column of the score, a number, more is better."""
    pairs_per_prompt: int = Field(0, ge=0, le=1_000_000)
    """Take at most so many pairs of one prompt's scored answers; 0 takes all."""
    faulty: Literal["refuse", "drop"] = "refuse"
    """What becomes of rows that are no pair (two equal sides, an empty answer, two dialogues that differ before their
    last turn): an error that names them, or leave them out and count them."""
    longest_prompt: int = Field(0, ge=0)
    """Leave out pairs whose prompt has more characters, all its turns together, and count them; 0 takes all."""
    rows: int = Field(0, ge=0)
    """Learn from at most this many pairs; 0 takes all."""
    test_rows: int = Field(0, ge=0)
    """Hold out at most this many pairs; 0 takes all. What is held out beyond them is not learnt from either."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides which pairs are held out, and which a limit takes."""


@placed(too_long="max_length", centre="too_long", confidence="deepspeed", resamples="confidence")
class RewardTrainingConfig(OptimiserConfig):
    """How the reward model is trained."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """Train an adapter and the head (PERL), the same on 4-bit weights (needs bitsandbytes), or all weights."""
    learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """Peak learning rate. Full fine-tuning wants less (1e-5) than an adapter."""
    epochs: float = Field(1.0, gt=0.0, le=1000.0)
    """Passes over the pairs. Reward models overfit early: one is usual."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Pairs per forward pass, shared by all processes. Lower it when memory runs out, and raise
    `gradient_accumulation`."""
    max_length: int = Field(1024, ge=8, le=1_048_576)
    """Longest prompt and answer together, in tokens; longer ones lose the beginning of their prompt, never their
    answer."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of training pairs with an answer that alone does not fit into `max_length`: an error that names
    one, or leave them out and count them."""
    centre: float = Field(0.01, ge=0.0, le=10.0)
    """Weight of the penalty that keeps the rewards of a pair around 0 (arXiv 2312.09244, eq. 2); 0 is none."""
    batching: Literal["length", "random"] = "length"
    """Pairs of similar length together (little padding), or at random."""
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    """Level of the bootstrap interval around the accuracy on held-out pairs."""
    resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the head's and the adapter's initial weights, of the order of the pairs and of the bootstrap."""
    adapter: AdapterConfig = AdapterConfig()
    """The adapter, for `lora`. The paper trains the attention projections alone (`q_proj,k_proj,v_proj,o_proj`)."""
