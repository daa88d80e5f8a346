"""The three services: how each is started, and how it is known to be well."""

import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import sha256

import httpx

from deployments.service.config import AUTHENTICATION, NOTIFY_URL, POOL, ServiceConfig
from deployments.service.databases import mlflow_database, prefect_database
from deployments.service.health import answers, client
from deployments.service.processes import Record
from tasks.core.served_artifacts import FOLDER

PREFECT, MLFLOW, WORKER = "prefect", "mlflow", "worker"

_PATIENCE_WITH_SQLITE_S = 30.0

_SECRETS = ("DATABASE_URL", AUTHENTICATION, NOTIFY_URL)
"""Variables of `make up` that no service and no run inherits; each server is given what it needs of them."""

_DECISIVE = {
    "LOOPWRIGHT_HOME",
    "LOOPWRIGHT_STORE",
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    AUTHENTICATION,
}
_DECISIVE |= {"MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "PREFECT_SERVER_DATABASE_CONNECTION_URL"}
"""Variables that a running service would have to be started anew for."""


@dataclass(frozen=True)
class Service:
    """One process of the stack."""

    name: str
    command: list[str]
    environment: dict[str, str]
    healthy: Callable[[Record], bool]
    """Whether the process of this record answers."""
    port: int = 0
    port_field: str = ""
    host: str = "127.0.0.1"
    replaces: bool = True
    """End what an earlier process left running before a new one starts; False for the worker, whose runs go on."""
    grace_s: float = 15.0
    url: str = ""
    patience_s: float = field(default=300.0, compare=False)

    @property
    def settings(self) -> str:
        """A digest of what decides how it runs: another means that it has to be started anew."""
        decisive = {name: value for name, value in self.environment.items() if name in _DECISIVE}
        text = "\0".join([*self.command, *(f"{name}={decisive[name]}" for name in sorted(decisive))])
        return sha256(text.encode()).hexdigest()[:16]


def environment(config: ServiceConfig, inherited: Mapping[str, str]) -> dict[str, str]:
    """What the worker, its runs, and every command that talks to the service find in their environment."""
    kept = {name: value for name, value in inherited.items() if name not in _SECRETS}
    ours = {
        "LOOPWRIGHT_HOME": str(config.home),
        "LOOPWRIGHT_STORE": inherited.get("LOOPWRIGHT_STORE", str(config.home / "store")),
        "PREFECT_HOME": str(config.home / "prefect"),
        "PREFECT_API_URL": f"{config.prefect_url}/api",
        "MLFLOW_TRACKING_URI": config.mlflow_url,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",  # it goes to a log and not to a terminal
        "PYTHONUNBUFFERED": "1",
        # Seconds between two signs of life; deployments/automations.yaml says what becomes of a run without.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "5",  # half of Prefect's own, so that Run is answered sooner
        # A server that is started again must not cost a run: both clients wait, in growing steps, for four minutes.
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7",
    }
    if config.authentication:
        ours["PREFECT_API_AUTH_STRING"] = config.authentication
    return kept | ours


def services(config: ServiceConfig, inherited: Mapping[str, str]) -> list[Service]:
    """The services in the order they start in; they end in the other."""
    shared = environment(config, inherited)
    python = [sys.executable, "-m"]
    address = ["--host", config.host, "--port", str(config.prefect_port)]
    authentication = {AUTHENTICATION: config.authentication} if config.authentication else {}
    prefect = Service(
        PREFECT,
        [*python, "prefect", "server", "start", *address],
        shared
        | {"PREFECT_UI_API_URL": inherited.get("PREFECT_UI_API_URL", f"{config.prefect_url}/api")}
        | authentication
        # Leases on GPU slots in files: those in memory would end with the server, and their slots stay taken for ever.
        | {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
        | prefect_database(config),
        lambda record: answers(f"{config.prefect_url}/api/health"),
        port=config.prefect_port,
        port_field="LOOPWRIGHT_PREFECT_PORT",
        host=config.host,
        url=config.prefect_url,
    )
    names = ",".join(f"{host}:{config.mlflow_port}" for host in ("127.0.0.1", "localhost"))
    address = ["--host", "127.0.0.1", "--port", str(config.mlflow_port), "--workers", "1"]
    artifacts = ["--artifacts-destination", str(config.home / FOLDER), "--allowed-hosts", names]
    mlflow = Service(
        MLFLOW,
        [*python, "mlflow", "server", *address, *artifacts],
        {name: value for name, value in shared.items() if name != "MLFLOW_TRACKING_URI"}
        | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
        }  # background jobs for scorers, in processes of their own
        | mlflow_database(config),
        lambda record: answers(f"{config.mlflow_url}/health"),
        port=config.mlflow_port,
        port_field="LOOPWRIGHT_MLFLOW_PORT",
        url=config.mlflow_url,
    )
    worker = Service(
        WORKER,
        [*python, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", worker_name()],
        shared,
        partial(_is_polling, config),
        replaces=False,
        grace_s=30.0,  # its runs end in an orderly way, which takes a stage some seconds
    )
    return [prefect, mlflow, worker]


def worker_name() -> str:
    """The worker's name in Prefect."""
    return f"make-up-{socket.gethostname()}"


def call(config: ServiceConfig, method: str, path: str, body: object = None) -> httpx.Response:
    """A request to Prefect's API, for which its client need not be imported; asks again, as that does, while SQLite is
    locked by another request."""
    user, _, password = config.authentication.partition(":")
    deadline = time.monotonic() + _PATIENCE_WITH_SQLITE_S
    while True:
        answer = client().request(
            method,
            f"{config.prefect_url}/api{path}",
            json=body,
            auth=(user, password) if user else None,
            timeout=30,
        )
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)


def _is_polling(config: ServiceConfig, record: Record) -> bool:
    try:
        found = call(config, "POST", f"/work_pools/{POOL}/workers/filter", {})
    except httpx.HTTPError:
        return False
    return found.is_success and any(
        worker["name"] == worker_name()
        and worker["status"] == "ONLINE"
        and datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() >= record.since
        for worker in found.json()
    )
