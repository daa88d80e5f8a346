"""`python -m deployments.service up | down | status | automate FILE…`: a Prefect server, an MLflow server and a worker;
what is to happen there by itself."""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path

import httpx

from deployments.service.automations import automate
from deployments.service.config import ServiceConfig, read_service_config
from deployments.service.down import down
from deployments.service.health import ServiceFailed
from deployments.service.processes import find, log_file
from deployments.service.stack import services
from deployments.service.up import up
from tasks.core.command_line import fail
from tasks.core.errors import UserError
from tasks.core.settings import set_environment


def main(arguments: list[str]) -> int:
    """Run a command; returns its exit code: 2 for a mistake of the user, 1 for a service that does not come up or,
    asked for its status, does not run."""
    parser = argparse.ArgumentParser(prog="python -m deployments.service", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "automate"))
    parser.add_argument(
        "files", nargs="*", type=Path, help="automate: the automations, as in infra/automations"
    )
    parser.add_argument("--host", help="where Prefect's server listens (LOOPWRIGHT_HOST; 127.0.0.1)")
    parser.add_argument("--prefect-port", help="LOOPWRIGHT_PREFECT_PORT; 4200")
    parser.add_argument("--mlflow-port", help="LOOPWRIGHT_MLFLOW_PORT; 5000")
    parser.add_argument("--gpu-slots", help="stages that load a model at once (LOOPWRIGHT_GPU_SLOTS; 1)")
    flags = vars(parser.parse_args(arguments))
    try:
        config = read_service_config(flags, os.environ)
        set_environment()
        if flags["command"] == "up":
            _say_up(config, up(config))
            return 0
        if flags["command"] == "down":
            done = False
            for line in down(config):
                done = True
                print(line, flush=True)
            if not done:
                print("nothing of the service runs")
            return 0
        if flags["command"] == "automate":
            _automate(config, flags["files"])
            return 0
        return _status(config)
    except (UserError, ServiceFailed) as error:
        return fail(error)


def _say_up(config: ServiceConfig, done: dict[str, str]) -> None:
    for name, words in done.items():
        print(f"{name:>8}  {words}")
    print(f"\n  Prefect  {config.prefect_url}/deployments")
    print(f"   MLflow  {config.mlflow_url}")
    print(f"    state  {config.home}   (logs in service/)")
    print("\nFor commands in a terminal to use both:")
    print(f"  export PREFECT_API_URL={config.prefect_url}/api MLFLOW_TRACKING_URI={config.mlflow_url}")


def _automate(config: ServiceConfig, files: list[Path]) -> None:
    if not files:
        raise UserError("no file is named", mend="for example infra/automations/notify.yaml")
    try:
        for file in files:
            for name in automate(config, file):
                print(f"set up: {name}")
    except httpx.ConnectError as error:
        raise UserError(f"{config.prefect_url} does not answer", mend="`make up` first") from error


def _status(config: ServiceConfig) -> int:
    """A line per service; 0 when all are well."""
    well = True
    for service in services(config, os.environ):
        record = find(config.state, service.name)
        if record is None or not record.alive:
            words = (
                "does not run"
                if record is None
                else f"ended by itself; see {log_file(config.state, service.name)}"
            )
        else:
            since = datetime.fromtimestamp(record.since).strftime("%Y-%m-%d %H:%M:%S")
            answers = service.healthy(record)
            words = f"{'runs' if answers else 'does not answer'} (process {record.pid}, since {since}) {service.url}"
        well = well and words.startswith("runs")
        print(f"{service.name:>8}  {words.rstrip()}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
