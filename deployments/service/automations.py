"""Automations from files to Prefect's server: what happens by itself when a run dies, data arrive, a model is promoted.

A file is a list of Prefect's automations. Two keys stand for identifiers that each server makes for itself:
`deployment: flow/name` in an action that runs one, `webhook: name` in one that calls a webhook.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from deployments.service.config import NOTIFY_URL, ROOT, ServiceConfig
from deployments.service.stack import call
from tasks.core.errors import UserError

OWN_FILE = ROOT / "deployments" / "automations.yaml"
"""The automations of `make up`."""


def automate(config: ServiceConfig, file: Path) -> list[str]:
    """Make the server's automations those of `file`, by their names, and return these; one that was switched off stays
    off, one that the file does not name stays as it is.

    Raises UserError for a file that holds no automations, for what the server does not have, and for what it refuses.
    """
    automations = [
        one | {"actions": [_resolved(config, action) for action in one["actions"]]} for one in _read(file)
    ]
    for one in automations:  # nothing is changed unless all can be resolved
        _put(config, one, file)
    return [str(one["name"]) for one in automations]


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}", mend="see infra/automations") from error
    needed = {"name", "trigger", "actions"}
    if not isinstance(content, list) or not all(
        isinstance(one, dict) and needed <= one.keys() for one in content
    ):
        raise UserError(
            f"{file} is not a list of automations",
            mend="each has name, trigger and actions; see infra/automations",
        )
    return content


def _resolved(config: ServiceConfig, action: dict[str, Any]) -> dict[str, Any]:
    """The action with identifiers in the place of names."""
    action = dict(action)
    if name := action.pop("deployment", ""):
        answer = call(config, "GET", f"/deployments/name/{name}")
        if answer.status_code == 404:
            raise UserError(f"there is no deployment {name}", field="deployment", mend="`make up` makes them")
        deployment = answer.raise_for_status().json()
        action |= {"source": "selected", "deployment_id": deployment["id"]}
        action["parameters"] = _merged(deployment["parameters"], action.get("parameters", {}))
    if name := action.pop("webhook", ""):
        action["block_document_id"] = _webhook(config, name)
    return action


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, those of `changes` over those of `base`."""
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merged(base[name], value) if both else value
    return merged


def _webhook(config: ServiceConfig, name: str) -> str:
    """The identifier of Prefect's Webhook block, made where there is none, with the address that was given."""
    url = os.environ.get(NOTIFY_URL, "")
    if url and not url.startswith(("http://", "https://")):
        raise UserError(
            "it is no http address", field=NOTIFY_URL, mend="give the address that is to be called"
        )
    data = {"method": "POST", "url": url, "headers": {"Content-Type": "application/json"}}
    answer = call(config, "GET", f"/block_types/slug/webhook/block_documents/name/{name}")
    if answer.status_code != 404:
        there = str(answer.raise_for_status().json()["id"])
        if url:
            call(config, "PATCH", f"/block_documents/{there}", {"data": data}).raise_for_status()
        return there
    if not url:
        raise UserError(
            f"there is no webhook {name} yet",
            field=NOTIFY_URL,
            mend=f"give the address that is to be called: {NOTIFY_URL}=https://…",
        )
    kind = call(config, "GET", "/block_types/slug/webhook").raise_for_status().json()["id"]
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind]}}, "limit": 1}
    schemas = call(config, "POST", "/block_schemas/filter", wanted).raise_for_status().json()
    block = {"name": name, "block_type_id": kind, "block_schema_id": schemas[0]["id"], "data": data}
    return str(call(config, "POST", "/block_documents/", block).raise_for_status().json()["id"])


def _put(config: ServiceConfig, automation: dict[str, Any], file: Path) -> None:
    body = {"automations": {"name": {"any_": [automation["name"]]}}}
    present = call(config, "POST", "/automations/filter", body).raise_for_status().json()
    version = f"loopwright-{sha256(json.dumps(automation, sort_keys=True).encode()).hexdigest()[:12]}"
    if present and version in present[0]["tags"]:
        return  # put again, it would forget the heartbeats that it has seen, and runs that died since
    automation = automation | {"tags": [*automation.get("tags", []), version]}
    if present:
        automation = automation | {"enabled": present[0]["enabled"]}
        answer = call(config, "PUT", f"/automations/{present[0]['id']}", automation)
    else:
        answer = call(config, "POST", "/automations/", automation)
    if answer.status_code in (409, 422):
        raise UserError(f"{file}: {automation['name']}: the server refuses it: {answer.text[:2000]}")
    answer.raise_for_status()
