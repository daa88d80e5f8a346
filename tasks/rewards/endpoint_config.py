"""Where an HTTP service that rewards answers is, and how hard to press it."""

from pydantic import ConfigDict, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.generators.endpoint import EndpointConfig

# One rule for addresses: a host, perhaps a port and a path; no user, no password, no query, which would be shown.
_ADDRESS = EndpointConfig.model_json_schema()["properties"]["url"]["pattern"]


class RewardEndpointConfig(Config):
    """A service over HTTP that says what answers are worth."""

    # A key pasted into the wrong field must not come back in a validation message.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field("http://127.0.0.1:8000/score", pattern=_ADDRESS)
    """Address that answers are POSTed to, as JSON: `{"inputs": [{"prompt": [{"role": …, "content": …}, …],
    "completion": "…"}, …]}`. It returns `{"scores": [number, …]}`, one from 0 to 1 for each input, in their order.
    Before a model is loaded, one short input asks whether it does."""
    version: str = Field("", max_length=100)
    """Rewards are kept by url and version: change it when the service has learned to judge otherwise."""
    key_env: str = Field("REWARD_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", json_schema_extra=PLACEMENT)
    """Environment variable that holds the key, which is sent as `Authorization: Bearer …`; none is sent when it is not
    set."""
    batch_size: int = Field(16, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Answers per request."""
    concurrency: int = Field(4, ge=1, le=1024, json_schema_extra=PLACEMENT)
    """Requests in flight at the same time, from each process."""
    timeout_s: float = Field(60.0, gt=0.0, le=3600.0, json_schema_extra=PLACEMENT)
    """Longest wait for the answer to one request, in seconds."""
    attempts: int = Field(6, ge=1, le=20, json_schema_extra=PLACEMENT)
    """How often a request is sent before the run ends. Only what may pass is tried again: no answer in time, a lost
    connection, HTTP 408, 409, 429 and 5xx."""
    backoff_s: float = Field(1.0, ge=0.0, le=60.0, json_schema_extra=PLACEMENT)
    """Wait after a first failure, in seconds; it doubles with every further one, up to a minute."""
