"""What the service is told: where it listens and where it keeps its state."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tasks.core.errors import UserError
from tasks.core.settings import home

ROOT = Path(__file__).parents[2]
"""The project's folder: runs start here, so that addresses in the configs may be relative to it."""

POOL = "loopwright"
"""The work pool of every deployment."""

AUTHENTICATION = "PREFECT_SERVER_API_AUTH_STRING"
"""Prefect's own variable, `user:password`, which makes its server ask for both."""

NOTIFY_URL = "LOOPWRIGHT_NOTIFY_URL"
"""The address of the webhook that automations call. A secret, which Prefect keeps in a block."""


@dataclass(frozen=True)
class ServiceConfig:
    """Where the servers listen and where everything is kept. `database` is a secret: it is shown and stored nowhere."""

    home: Path
    host: str = "127.0.0.1"
    prefect_port: int = 4200
    mlflow_port: int = 5000
    database: str = ""
    """PostgreSQL's address for both servers; empty keeps a SQLite file for each in `home`."""
    authentication: str = ""
    """`user:password` of the Prefect server; empty asks for none."""
    gpu_slots: int = 0
    """Stages that load a model at once; 0 leaves the number that there is, at first 1."""

    @property
    def state(self) -> Path:
        """The folder of logs and of the records of what runs."""
        return self.home / "service"

    @property
    def reached_at(self) -> str:
        """The host under which this machine reaches its own Prefect server."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host

    @property
    def prefect_url(self) -> str:
        return f"http://{_bracketed(self.reached_at)}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's address; without authentication of its own it never leaves loopback."""
        return f"http://127.0.0.1:{self.mlflow_port}"


def read_service_config(
    flags: Mapping[str, str | int | None], environment: Mapping[str, str]
) -> ServiceConfig:
    """The configuration of flags over environment variables over defaults. Raises UserError."""

    def given(name: str, variable: str, default: str) -> str:
        flag = flags.get(name)
        return str(flag) if flag is not None else environment.get(variable, "") or default

    config = ServiceConfig(
        home=home(),
        host=given("host", "LOOPWRIGHT_HOST", "127.0.0.1"),
        prefect_port=_port(
            "LOOPWRIGHT_PREFECT_PORT", given("prefect_port", "LOOPWRIGHT_PREFECT_PORT", "4200")
        ),
        mlflow_port=_port("LOOPWRIGHT_MLFLOW_PORT", given("mlflow_port", "LOOPWRIGHT_MLFLOW_PORT", "5000")),
        database=environment.get("DATABASE_URL", ""),
        authentication=environment.get(AUTHENTICATION, ""),
        gpu_slots=_slots("LOOPWRIGHT_GPU_SLOTS", given("gpu_slots", "LOOPWRIGHT_GPU_SLOTS", "0")),
    )
    check_service(config)
    return config


def check_service(config: ServiceConfig) -> None:
    """Raise UserError for what cannot work or would open the service to others."""
    if config.prefect_port == config.mlflow_port:
        raise UserError(
            f"both servers were given port {config.mlflow_port}",
            field="LOOPWRIGHT_MLFLOW_PORT",
            mend="choose another for one of them",
        )
    if not _is_loopback(config.host) and not config.authentication:
        raise UserError(
            f"{config.host} is more than this machine, and whoever reaches the Prefect server can run code",
            field="LOOPWRIGHT_HOST",
            mend=f"leave it at 127.0.0.1, or set {AUTHENTICATION}=user:password",
        )
    if config.authentication and not all(config.authentication.partition(":")):
        raise UserError("it has to be user:password", field=AUTHENTICATION)
    if config.database and urlsplit(config.database).scheme not in ("postgresql", "postgres"):
        raise UserError(
            "it has to be postgresql://user:password@host:port/database",
            field="DATABASE_URL",
            mend="unset it to keep everything in SQLite files",
        )
    try:
        config.state.mkdir(parents=True, exist_ok=True)
        os.chmod(config.state, 0o700)  # logs may quote what a run was given
    except OSError as error:
        raise UserError(f"{config.state} cannot be written to: {error}", field="LOOPWRIGHT_HOME") from error


def _port(name: str, text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise UserError(f"{text!r} is no port", field=name, mend="give a number from 1 to 65535")
    return int(text)


def _slots(name: str, text: str) -> int:
    if not text.isdigit() or int(text) > 1024:
        raise UserError(
            f"{text!r} is no number of slots",
            field=name,
            mend="give 1 or more, or leave it out to keep what is there",
        )
    return int(text)


def _is_loopback(host: str) -> bool:
    """Whether every address that `host` stands for is this machine's alone."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise UserError(f"there is no host {host}: {error}", field="LOOPWRIGHT_HOST") from error
    return all(ipaddress.ip_address(str(address).split("%")[0]).is_loopback for address in found)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
