"""What an answer is worth, and who says so."""

from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.models import Precision
from tasks.rewards.endpoint_config import RewardEndpointConfig
from tasks.rewards.user_function import FIELD as FUNCTION
from tasks.rewards.user_function import check_function, source_digest


class RewardConfig(Config):
    """What an answer is worth, from 0 to 1."""

    by: Literal["problem", "function", "model", "endpoint"] = "problem"
    """The problem's own score, a function of yours, a reward model, or a service over HTTP."""
    function: str = ""
    """Your function as `module:function`, from an installed module or one in the current folder: it takes the
    conversation as text, the answer, and the row as a dictionary, and returns a number from 0 to 1. It runs in a
    process of its own, which guards against hanging and crashing and is no security boundary."""
    time_limit_s: float = Field(10.0, gt=0.0, le=3600.0)
    """Seconds your function has for one answer; then it is stopped and the answer is worth 0."""
    memory_mb: int = Field(0, ge=0, le=1 << 20)
    """Address space your function may take, in MiB; 0 is no limit."""
    model: str = Field("", json_schema_extra=PLACEMENT)
    """`by: model`: the folder (`s3://…` too) of a reward model that was trained before, full weights of any
    architecture or an adapter on the base that is used here; empty trains one."""
    batch_size: int = Field(32, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Answers the reward model reads together. Lower it when memory runs out."""
    precision: Precision = "auto"
    """Number format of the reward model's weights; auto is bfloat16 on GPUs that have it, else float32."""
    endpoint: RewardEndpointConfig = RewardEndpointConfig()
    """The service."""


def check(config: RewardConfig) -> None:
    """Raise UserError for a function that is missing, not needed, or cannot be called as it will be, and for an
    endpoint that is not needed or does not score a first short answer."""
    if config.by == "function":
        check_function(config.function)
    elif config.function:
        raise UserError(
            f"{config.function} is named, but rewards come by {config.by}",
            field=FUNCTION,
            mend="set reward.by to function, or leave the name out",
        )
    if config.model and config.by != "model":
        raise UserError(
            f"{config.model} is named, but rewards come by {config.by}",
            field="reward.model",
            mend="set reward.by to model, or leave the folder out",
        )
    if config.model:
        from tasks.reward_model.ready import check_ready

        check_ready(config.model)
    if config.by == "endpoint":
        from tasks.rewards.endpoint import RewardEndpoint

        RewardEndpoint(config.endpoint).check()
    elif config.endpoint.url != RewardEndpointConfig().url:
        raise UserError(
            f"{config.endpoint.url} is named, but rewards come by {config.by}",
            field="reward.endpoint.url",
            mend="set reward.by to endpoint, or leave the url out",
        )


def function_code(config: RewardConfig) -> str:
    """SHA-256 of the source file of the user's function, for cache keys; empty when there is none."""
    return source_digest(config.function) if config.by == "function" else ""
