"""Every entry of prefect.yaml as a deployment on the server at PREFECT_API_URL.

`prefect deploy --all` reads the same file; here the forms are put in order, an entry that changed keeps the schedules
that a person made or switched, and a file that is deployed already is not deployed again.
"""

import os
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from deployments.service.config import POOL, ROOT, ServiceConfig
from deployments.service.forms import form_schema, whole_parameters
from deployments.service.presets import project_root, read_presets
from deployments.service.stack import call
from tasks.core.settings import set_environment

PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"


def source_digest() -> str:
    """A digest of everything that a deployment is made of; it is every deployment's version."""
    files = [PREFECT_FILE, *(ROOT / "deployments").rglob("*.yaml")]
    files += [
        path for folder in ("flows", "tasks", "deployments/service") for path in (ROOT / folder).rglob("*.py")
    ]
    digest = sha256(str(ROOT).encode())
    for file in sorted(set(files)):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def is_deployed(config: ServiceConfig) -> bool:
    """Whether the server has every entry of the file as it is now; asked without importing a flow."""
    entries = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))["deployments"]
    wanted = {(entry["entrypoint"], entry["name"]) for entry in entries}
    answer = call(config, "POST", "/deployments/filter", {"limit": 200})
    answer.raise_for_status()
    version = source_digest()
    present = {(one["entrypoint"], one["name"]) for one in answer.json() if one["version"] == version}
    return wanted <= present


def read_entries(file: Path = PREFECT_FILE) -> list[dict[str, Any]]:
    """The file's deployments, their placeholders filled in: presets, and variables such as `{{ $HOME }}`."""
    from prefect.utilities.templating import apply_values

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    values = {"presets": read_presets(), "root": project_root()}
    return [dict(apply_values(entry, values)) for entry in content["deployments"]]


def read_queues(file: Path = PREFECT_FILE) -> dict[str, int]:
    """The work queues with the number of runs that each lets work at once."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(content["definitions"]["work_queues"])


def deploy() -> list[str]:
    """Deploy all entries; returns their names as `flow/deployment`."""
    from prefect.client.orchestration import get_client
    from prefect.flows import load_flow_from_entrypoint

    version, names = source_digest(), []
    with get_client(sync_client=True) as client:
        _make_pool(client)
        for entry in read_entries():
            flow: Any = load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False)
            parameters, fill_in = entry.get("parameters", {}), entry.get("fill_in", [])
            name = f"{flow.name}/{entry['name']}"
            client.create_deployment(
                flow_id=client.create_flow_from_name(flow.name),
                name=entry["name"],
                version=version,
                description=entry["description"].strip(),
                tags=entry.get("tags", []),
                entrypoint=entry["entrypoint"],
                parameters=whole_parameters(flow, parameters, fill_in),
                parameter_openapi_schema=form_schema(flow, fill_in),
                enforce_parameter_schema=True,
                work_pool_name=entry["work_pool"]["name"],
                work_queue_name=entry["work_pool"]["work_queue_name"],
                job_variables=entry["work_pool"]["job_variables"],
                **_kept(client, name, entry.get("schedules", [])),
            )
            names.append(name)
    return names


def _make_pool(client: Any) -> None:
    """The work pool and its queues, where there are none; the worker completes the pool with its own template."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    for name, at_once in read_queues().items():
        with suppress(ObjectAlreadyExists):  # with the limit that somebody may have given it since
            client.create_work_queue(name=name, concurrency_limit=at_once, work_pool_name=POOL)


def _kept(client: Any, name: str, wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """The schedules of the file, switched as they are on the server, with those that a person made there."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import construct_schedule
    from prefect.exceptions import ObjectNotFound

    try:
        present = client.read_deployment_by_name(name)
    except ObjectNotFound:
        present = None
    switched = {one.slug: one.active for one in present.schedules} if present else {}
    schedules = []
    for one in wanted:
        when = {
            key: one[key] for key in ("cron", "interval", "rrule", "timezone", "anchor_date") if key in one
        }
        schedules.append(
            DeploymentScheduleCreate(
                schedule=construct_schedule(**when),
                active=switched.get(one["slug"], one.get("active", False)),
                parameters=one.get("parameters", {}),
                slug=one["slug"],
            )
        )
    named = {one["slug"] for one in wanted}
    for one in present.schedules if present else []:
        if one.slug is None or one.slug not in named:
            schedules.append(
                DeploymentScheduleCreate(
                    schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug
                )
            )
    return {"schedules": schedules, "paused": bool(present and present.paused)}


def main() -> int:
    """Deploy, and print the names."""
    set_environment()
    for name in deploy():
        print(f"deployed {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
