"""A server that speaks the OpenAI protocol: its address, key and model, and what is wrong with them."""

import os
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.generators.openai_protocol import read_error, read_models

if TYPE_CHECKING:
    import httpx

_CHECK_TIMEOUT_S = 30.0
_LISTED_MODELS = 10
_HOST = r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*)"


class EndpointConfig(Config):
    """A server that speaks the OpenAI protocol, and how hard to press it."""

    # A key pasted into the wrong field must not come back in a validation message.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field(
        "http://127.0.0.1:8080/v1",
        pattern=rf"^https?://{_HOST}(:\d{{1,5}})?(/[^\s?#]*)?$",
        json_schema_extra=PLACEMENT,
    )
    """Address of the API, usually ending in /v1."""
    model: str = ""
    """The model's name on the server; empty takes the only one it serves."""
    concurrency: int = Field(8, ge=1, le=1024, json_schema_extra=PLACEMENT)
    """Requests in flight at the same time."""
    timeout_s: float = Field(120.0, gt=0.0, le=3600.0, json_schema_extra=PLACEMENT)
    """Longest wait for one answer, in seconds."""
    attempts: int = Field(6, ge=1, le=20, json_schema_extra=PLACEMENT)
    """How often a prompt is sent before it counts as failed; waiting out a rate limit that others get through
    does not count."""
    backoff_s: float = Field(1.0, ge=0.0, le=60.0, json_schema_extra=PLACEMENT)
    """Wait after a first failure, in seconds; it doubles with every further one, up to a minute."""
    key_env: str = Field("OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", json_schema_extra=PLACEMENT)
    """Environment variable that holds the API key; none is sent when it is not set."""


class Endpoint:
    """The server behind an EndpointConfig; `field` is the configuration field that holds it, for messages."""

    def __init__(self, config: EndpointConfig, field: str) -> None:
        self.config = config
        self.url = config.url.rstrip("/")
        self._field = field

    def headers(self) -> dict[str, str]:
        """The headers that carry the key, if there is one. Raises UserError when it cannot be a key."""
        if not (key := self._key()):
            return {}
        if not (key.isascii() and key.isprintable() and " " not in key):
            fault = f"the environment variable {self.config.key_env} does not hold a key"
            raise self._fault("key_env", fault, "A key has no spaces, line breaks or letters beyond ASCII.")
        return {"Authorization": f"Bearer {key}"}

    def check(self) -> str:
        """Reach the server and return the name of the model to ask it for.

        A server without a list of models passes when the configuration names one. Raises UserError when the
        server cannot be reached, refuses the key, does not speak the protocol or does not serve the model.
        """
        import httpx

        timeout_s = min(self.config.timeout_s, _CHECK_TIMEOUT_S)
        try:
            response = httpx.get(f"{self.url}/models", headers=self.headers(), timeout=timeout_s)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._fault("url", f"{self.url} is no address: {error}", "Correct it.") from error
        except httpx.RequestError as error:
            raise self.unreachable(error) from error
        if response.status_code in (401, 403):
            raise self.denied(response)
        if response.is_success:
            return self._choose_model(response)
        if response.status_code in (404, 405, 429) and self.config.model:
            return self.config.model
        fault = f"{self.url}/models answers HTTP {response.status_code}: {self.refusal(response)}"
        if response.status_code in (404, 405, 429):
            raise self._fault("model", fault, "Name the model to ask for, or correct the url.")
        raise self._fault(
            "url", fault, "Wait until the server is ready, or correct the url (it usually ends in /v1)."
        )

    def _choose_model(self, response: "httpx.Response") -> str:
        try:
            models = read_models(response.content)
        except ValueError as error:
            fault = self.without_key(f"{self.url}/models: {error}")
            raise self._fault("url", fault, "Correct the url; it usually ends in /v1.") from error
        wanted = self.config.model
        if wanted and any(wanted in names for names in models):
            return wanted
        if not wanted and len(models) == 1:
            return models[0][0]
        listed = ", ".join(names[0] for names in models[:_LISTED_MODELS]) or "none"
        more = f" and {len(models) - _LISTED_MODELS} more" if len(models) > _LISTED_MODELS else ""
        fault = (
            f"{self.url} serves no model {wanted!r}" if wanted else f"{self.url} serves {len(models)} models"
        )
        raise self._fault("model", fault, f"Name one of those it lists: {listed}{more}.")

    def unreachable(self, error: Exception) -> UserError:
        """The error of a server that does not take connections."""
        fault = f"{self.url} cannot be reached (model {self.config.model!r}): {error or type(error).__name__}"
        return self._fault("url", fault, "Start the server, or correct the url.")

    def denied(self, response: "httpx.Response") -> UserError:
        """The error of a server that answers 401 or 403."""
        state = "holds a key that it does not accept" if self._key() else "is not set"
        return self._fault(
            "key_env",
            f"{self.url} refuses access to model {self.config.model!r} "
            f"(HTTP {response.status_code}: {self.refusal(response)})",
            f"The environment variable {self.config.key_env} {state}: set it to one that may use this model.",
        )

    def unknown_model(self, model: str, response: "httpx.Response") -> UserError:
        """The error of a server that answers 404 to a prompt."""
        return self._fault(
            "model",
            f"{self.url} does not know the model {model!r} (HTTP 404: {self.refusal(response)})",
            "Correct the model's name, or the url, which usually ends in /v1.",
        )

    def refusal(self, response: "httpx.Response") -> str:
        """Why the server refused a request, in its own words."""
        return self.without_key(read_error(response.content)[1])

    def without_key(self, text: str) -> str:
        """The text of a server, fit to be shown: some repeat the key they refuse."""
        key = self._key()
        return text.replace(key, "[key]") if key else text

    def _key(self) -> str:
        return os.environ.get(self.config.key_env, "").strip()

    def _fault(self, setting: str, fault: str, mend: str) -> UserError:
        return UserError(fault, field=f"{self._field}.{setting}", mend=mend)
