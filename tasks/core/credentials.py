"""Keys of servers from Prefect's blocks: they become environment variables of the run, where every client looks.

`aws-credentials/NAME` is a block of prefect-aws (read without that package), `secret/NAME` one of Prefect's own: a JSON
object of variables and their values, or for one variable `secret/NAME:VARIABLE` and its value as it is.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from tasks.core.errors import UserError
from tasks.core.temporary_server import tie_to_this_process

Credential = Annotated[
    str, Field(pattern=r"^(aws-credentials/[a-z0-9-]+|secret/[a-z0-9-]+(:[A-Z][A-Z0-9_]*)?)$")
]
"""How a configuration names a block."""

_OF_AWS = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "region_name": "AWS_DEFAULT_REGION",
    "profile_name": "AWS_PROFILE",
}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_ALONE = {_KEYS[0]: _KEYS[2:], "AWS_PROFILE": _KEYS}
"""What is not to be mixed with variables of others: the first that is found decides."""
_PUBLIC = ("_URL", "_REGION", "_PROFILE")
TAKEN = "LOOPWRIGHT_TAKEN"
"""The variable that tells processes and machines which others came from blocks."""
_MEND = "make it on Prefect's page (Blocks), or see `prefect block ls` for those there are"


def take_credentials(blocks: Sequence[str]) -> tuple[str, ...]:
    """Set the environment variables that the blocks hold, over those of the same name, and return their names. Of keys
    of AWS nothing is left beside them that belongs to others: a session, say, or keys beside a profile.

    Raises UserError for a block that does not exist, cannot be read or holds no variables; no message shows a value.
    """
    if not blocks:
        return ()
    tie_to_this_process()  # the temporary server, where no other is configured, keeps blocks as well
    found: dict[str, str] = {}
    for block in blocks:
        found |= _variables(block)
    for alone, others in _ALONE.items():
        if alone in found:
            # Empty is as good as not set, and goes along to other machines.
            found = dict.fromkeys(others, "") | found
            break
    changed = {name for name, value in found.items() if os.environ.get(name) != value}
    os.environ |= found | {TAKEN: ",".join(found)}
    if changed and "s3fs" in sys.modules:
        # It keeps file systems by their arguments, with the keys that they began with.
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
    return tuple(found)


def secret_names() -> set[str]:
    """The variables that were taken, but for those that only say where a server is."""
    taken = os.environ.get(TAKEN, "").split(",")
    return {name for name in taken if not name.endswith(_PUBLIC) or "@" in os.environ.get(name, "")}


def _variables(block: str) -> dict[str, str]:
    """What the block says, by environment variable."""
    place, _, variable = block.partition(":")
    kind, _, name = place.partition("/")
    content = _read(block, kind, name)
    if kind == "aws-credentials":
        return _of_aws(block, content)
    value = content.get("value")
    if variable:
        return _checked(block, {variable: value})
    return _checked(block, _parsed(value))


def _read(block: str, kind: str, name: str) -> Mapping[str, Any]:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    try:
        with get_client(sync_client=True) as client:
            return dict(client.read_block_document_by_name(name, kind).data)
    except ObjectNotFound as error:
        raise UserError(
            f"Prefect has no block {kind}/{name}", field="credentials", mend=f"{block}: {_MEND}"
        ) from error
    except (httpx.HTTPError, ValueError, RuntimeError) as error:  # away, refuses, no address, did not start
        raise UserError(
            f"{kind}/{name} cannot be read from Prefect: {error}",
            field="credentials",
            mend="look at PREFECT_API_URL, and PREFECT_API_AUTH_STRING or PREFECT_API_KEY where the server asks for it",
        ) from error


def _of_aws(block: str, content: Mapping[str, Any]) -> dict[str, str]:
    client = content.get("aws_client_parameters") or {}
    found = {variable: content.get(name) for name, variable in _OF_AWS.items()}
    found["AWS_ENDPOINT_URL"] = client.get("endpoint_url")
    return _checked(block, {variable: value for variable, value in found.items() if value})


def _parsed(value: Any) -> Any:
    """A secret's value may be JSON, or a text that is JSON: Prefect's page and its Python client differ."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def _checked(block: str, found: Any) -> dict[str, str]:
    if (
        isinstance(found, dict)
        and found
        and all(isinstance(value, str) and value and "\0" not in value for value in found.values())
        and all(re.fullmatch("[A-Z][A-Z0-9_]*", name) for name in found)
    ):
        return dict(found)
    raise UserError(
        f"{block} does not hold what is needed",
        field="credentials",
        mend='a secret is a JSON object of variables and texts, {"AWS_ACCESS_KEY_ID": "…"}, or for one variable '
        "secret/NAME:VARIABLE with a text; an aws-credentials block has keys, or a profile",
    )
