"""How samples are drawn from a policy."""

from typing import Literal

from pydantic import Field

from tasks.compress.weights import located
from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.generators.load import EngineConfig, check_trained_here
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.sft.config import TrainingConfig


class DrawConfig(Config):
    """What decides a sample, whatever shard it is drawn in."""

    temperature: float = Field(0.8, ge=0.0, le=5.0)
    """1 samples from the policy's own distribution; 0 always gives the likeliest answer."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample from the smallest set of tokens whose probabilities sum to this."""
    top_k: int = Field(0, ge=0)
    """Sample from the k likeliest tokens; 0 is all of them."""
    max_new_tokens: int = Field(0, ge=0, le=32768)
    """Longest answer in tokens; 0 takes what the problem needs."""
    engine: EngineConfig = EngineConfig()
    """What runs the policy."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the sampling."""


class GrowConfig(Config):
    """How samples are drawn."""

    samples: int = Field(8, ge=1, le=4096)
    """Samples of every prompt. With a larger number later, those that exist are kept and the missing ones drawn."""
    temperature: float | None = Field(None, ge=0.0, le=5.0)
    """1 samples from the policy's own distribution; unset is 0.8 for `rest` and 0.7 for `rest-em`, as published."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample from the smallest set of tokens whose probabilities sum to this."""
    top_k: int | None = Field(None, ge=0)
    """Sample from the k likeliest tokens, 0 from all; unset is 0 for `rest` and 40 for `rest-em`, as published."""
    max_new_tokens: int = Field(0, ge=0, le=32768)
    """Longest answer in tokens; 0 takes what the problem needs."""
    engine: EngineConfig = EngineConfig(batch_size=64)
    """What runs the policy."""
    shard_prompts: int = Field(128, ge=1, le=100_000)
    """Prompts of a shard: a kill loses one shard at most."""
    shard_samples: int = Field(8, ge=1, le=4096)
    """Most samples per prompt of a shard."""
    at_once: int = Field(1, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Shards drawn, or scored, at once, as tasks of the flow's task runner. In threads of one machine each holds a
    model of its own; more than one is for many devices, or a cluster; where `fan_out.at_once` is more, that counts."""
    best_of: int = Field(0, ge=0, le=4096)
    """Also test the start by the best of so many samples of every test row, drawn in the same way: what choosing alone
    could do, without any training. 0 does not."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the sampling: sample number s of a prompt in an iteration depends on it and these three alone."""

    def drawing(self) -> DrawConfig:
        """The part that decides a sample; the samples of a shard are cached by it. Raises UserError for a compressor
        that cannot be had, and an engine that is not installed."""
        shared = {name: getattr(self, name) for name in DrawConfig.model_fields}
        shared["engine"] = located(self.engine, "grow.engine")
        return DrawConfig(**{name: value for name, value in shared.items() if value is not None})


def check(config: GrowConfig, training: TrainingConfig, problem: str, *, keep_cut: bool) -> None:
    """Raise UserError for an engine that cannot be had or is a server, which has no policy, and for samples that may be
    too long to train on where the training leaves none out."""
    check_trained_here(config.engine, field="grow.engine")
    config.drawing()
    longest = config.max_new_tokens or load_problem(ProblemConfig(name=problem)).max_new_tokens
    longest += keep_cut  # the end of a whole answer is drawn, that of a cut one comes on top
    if training.too_long == "refuse" and longest >= training.max_length:
        raise UserError(
            f"samples may have {longest} tokens, and training.max_length={training.max_length} has no room for those",
            field="grow.max_new_tokens",
            mend=f"lower it, raise training.max_length above {longest}, or leave such samples out with "
            "--training.too_long=drop",
        )


def planned(config: GrowConfig, method: Literal["rest", "rest-em"]) -> GrowConfig:
    """The configuration with the method's sampling where none is set."""
    published = {"rest": {"temperature": 0.8, "top_k": 0}, "rest-em": {"temperature": 0.7, "top_k": 40}}
    unset = {name: value for name, value in published[method].items() if getattr(config, name) is None}
    return config.model_copy(update=unset)
