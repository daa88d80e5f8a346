"""Where the calls of one stage run side by side: threads, processes of this machine, or a Ray cluster."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Literal

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.errors import UserError

_ADDRESS = r"^((ray://)?[^:/\s]+:[0-9]{1,5})?$"
_VARIABLE = "RAY_ADDRESS"
"""Where Ray's own commands look for a cluster."""
_ANSWER_S = 5.0
_SHARD_ROWS = 256


class FanOutConfig(Config):
    """Where the shards of a data set are worked on side by side; what comes out is the same everywhere."""

    runner: Literal["threads", "processes", "ray"] = "threads"
    """Threads or processes of this machine, or a Ray cluster (`pip install 'loopwright[ray]'`)."""
    ray_address: str = Field("", pattern=_ADDRESS)
    """The cluster: `HOST:6379` from one of its machines, `ray://HOST:10001` from elsewhere. Empty is the
    cluster that the environment names in RAY_ADDRESS; without one Ray is started on this machine, for as long as the
    run lasts."""
    rows_per_shard: int = Field(0, ge=0, le=1_000_000)
    """Evaluations of more rows, and augmentations of more requests to a local teacher, are cut into shards of so many:
    a kill loses one shard at most. 0 is 256 in processes and on Ray, and leaves them whole in threads."""
    at_once: int = Field(0, ge=0, le=4096)
    """Calls under way at once; in threads and processes each holds a model of its own. 0 is one of them in threads, one
    per CPU in processes, and on Ray as many as the cluster has room for."""
    cpus_per_task: float = Field(1.0, ge=0.0, le=1024.0)
    """CPUs that Ray sets aside for a call."""
    gpus_per_task: float = Field(0.0, ge=0.0, le=1024.0)
    """GPUs that Ray sets aside for a call; with 0 it sees none."""

    @property
    def cluster(self) -> str:
        """Where the cluster is; empty for none, and for a Ray that is started here."""
        if self.runner != "ray" or self.ray_address:
            return self.ray_address
        found = os.environ.get(_VARIABLE, "")
        return "" if found == "local" else found  # Ray's own word for one that is started here

    @property
    def shard_rows(self) -> int:
        """Most rows of a shard; 0 leaves data sets whole."""
        return self.rows_per_shard or (0 if self.runner == "threads" else _SHARD_ROWS)

    @property
    def most_at_once(self) -> int:
        """Most calls under way."""
        defaults = {"threads": 1, "processes": os.cpu_count() or 1, "ray": sys.maxsize}
        return self.at_once or defaults[self.runner]


def check_fan_out(config: FanOutConfig, whole: BaseModel) -> None:
    """Raise UserError when Ray is asked for and is not there, does not answer, or has no room for a single call.

    `whole` is the flow's configuration: its engines on vLLM need GPUs enough.
    """
    if config.runner != "ray":
        if config.ray_address:
            raise UserError(
                f"only runner ray reads it, and the runner is {config.runner}",
                field="fan_out.ray_address",
                mend="set fan_out.runner to ray, or leave the address out",
            )
        return
    if not (find_spec("ray") and find_spec("prefect_ray")):
        raise UserError(
            "Ray is not installed",
            field="fan_out.runner",
            mend="pip install 'loopwright[ray]', or choose processes",
        )
    if config.cluster:
        _check_cluster(config.cluster)
    else:
        _check_machine(config)
    for path, part in parts(whole):
        over = getattr(part, "tensor_parallel", 1) if getattr(part, "engine", "") == "vllm" else 1
        if over > max(1.0, config.gpus_per_task):
            raise UserError(
                f"a call gets {config.gpus_per_task:g}, and {path}.tensor_parallel spreads a model over {over}",
                field="fan_out.gpus_per_task",
                mend=f"set it to {over}",
            )


def parts(config: BaseModel, path: str = "") -> Iterator[tuple[str, BaseModel]]:
    """A configuration and all that it consists of, each with where it stands (`teacher.engine`)."""
    yield path, config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from parts(value, f"{path}.{name}" if path else name)


def _check_cluster(address: str) -> None:
    from prefect.settings import PREFECT_API_URL

    if not re.fullmatch(_ADDRESS, address):
        raise UserError(
            f"{_VARIABLE} is {address!r} in the environment, which is no HOST:PORT",
            field="fan_out.ray_address",
            mend="give the address here, or unset the variable for a Ray on this machine",
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{address} does not answer ({error})",
            field="fan_out.ray_address",
            mend=f"`ray start --head` starts a cluster and prints its address; leave it empty, and {_VARIABLE} "
            "unset, for one on this machine",
        ) from error
    server = PREFECT_API_URL.value() or ""
    if not _is_here(host) and (not server or _is_here(server.split("//")[-1].split("/")[0].split(":")[0])):
        raise UserError(
            f"the machines of {address} cannot reach Prefect's server at {server or 'a temporary address'}",
            field="fan_out.ray_address",
            mend="start one (`prefect server start --host 0.0.0.0`) and set PREFECT_API_URL as they see it",
        )


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_machine(config: FanOutConfig) -> None:
    there = os.cpu_count() or 1
    if config.cpus_per_task > there:
        raise UserError(
            f"a call gets {config.cpus_per_task:g}, and this machine has {there}",
            field="fan_out.cpus_per_task",
            mend=f"set it to at most {there}, or give fan_out.ray_address",
        )
    if config.gpus_per_task:
        import torch

        devices = torch.cuda.device_count()
        if config.gpus_per_task > devices:
            raise UserError(
                f"a call gets {config.gpus_per_task:g}, and this machine has {devices or 'none'}",
                field="fan_out.gpus_per_task",
                mend=f"set it to at most {devices}, or give fan_out.ray_address",
            )
