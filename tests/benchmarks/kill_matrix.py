"""What is lost when something is killed: each part of the service, at each moment of a run.

    make bench NAME=kill-matrix

Every cell runs llm2llm on a model of some 40,000 parameters in a store of its own, kills one thing with SIGKILL, and
says `make up`, as whoever looks after the machine would; a flow's own processes are not started again by hand. Then the
run ends well (`by itself`), or the same configuration is run again and ends well (`by a rerun`), or neither (`lost`).
Ending well is to be Completed, with the very weights of a run that nothing happened to. Cells that are done stay in
build/bench/kill_matrix; the row of PostgreSQL needs Debian's package.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from deployments.service.config import ROOT
from tests.flows.test_service import Service, start, tiny
from tests.postgresql import Database
from tests.tiny_model import build_tiny_model

FOLDER = ROOT / "build" / "bench" / "kill_matrix"
WHEN = ("before the first stage", "in training", "between stages")
WHAT = ("flow process", "training process", "worker", "Prefect server", "MLflow server")
PATIENCE_S = 900.0
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING")


class Cell:
    """A run in a store of its own."""

    def __init__(self, service: Service, name: str, model: Path) -> None:
        self.service, self.store = service, service.home / "cells" / name
        deployment = service.get("/deployments/name/llm2llm/demo")
        config = tiny(deployment["parameters"]["config"], model) | {"store": str(self.store)}
        config["training"] |= {"max_steps": 60, "checkpoint_steps": 2}
        self.deployment, self.config = deployment, config

    def start(self) -> str:
        """Press Run; the run's id."""
        # SQLite may be locked for a moment: then Prefect's own clients ask again as well.
        while (answer := start(self.service.api, self.deployment, self.config)).status_code == 503:
            time.sleep(1)
        return str(answer.raise_for_status().json()["id"])

    def ends(self, run: str) -> str:
        """The type of the state that the run ends in; the one it is in when patience ends."""
        deadline = time.monotonic() + PATIENCE_S
        while (state := self.state(run)) in UNDER_WAY and time.monotonic() < deadline:
            time.sleep(1)
        return state

    def state(self, run: str) -> str:
        return str(self.service.get(f"/flow_runs/{run}")["state"]["type"])

    def wait(self, run: str, when: str) -> None:
        """Return at the moment that `when` names."""
        reached = {
            WHEN[0]: lambda: self.state(run) == "RUNNING",
            WHEN[1]: lambda: list(self.store.glob("work/sft/*/checkpoints/*/whole.json")),
            WHEN[2]: lambda: list(self.store.glob("sft/*/manifest.json")),
        }[when]
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < deadline, f"the run never was {when}"
            assert self.state(run) in UNDER_WAY, "the run ended too early"
            time.sleep(0.01)

    def weights(self) -> list[tuple[str, str]]:
        """What was trained: every file with its digest."""
        (manifest,) = self.store.glob("sft/*/manifest.json")
        files = json.loads(manifest.read_text())["files"]
        return sorted((file["name"], file["sha256"]) for file in files)

    def flow_process(self, run: str) -> psutil.Process:
        """The process that runs the flow; all that it started has inherited the run's id as well."""
        found = {
            one.pid: one
            for one in self.service.processes()
            if one.environ().get("PREFECT__FLOW_RUN_ID") == run
        }
        (top,) = (one for one in found.values() if one.ppid() not in found)
        return top

    def training_process(self) -> int:
        """The process group of the training."""
        (groups,) = self.store.glob("work/sft/*/groups.txt")
        return int(groups.read_text().split()[1])


def outcome(
    cell: Cell, what: str, when: str, restore: Callable[[], None], undisturbed: list[tuple[str, str]]
) -> str:
    """Kill, and see what becomes of the run."""
    run = cell.start()
    cell.wait(run, when)
    kill(cell, what, run)
    restore()
    if cell.ends(run) == "COMPLETED" and cell.weights() == undisturbed:
        return "by itself"
    again = cell.start()
    whole = cell.ends(again) == "COMPLETED" and cell.weights() == undisturbed
    return "by a rerun" if whole else "lost"


def kill(cell: Cell, what: str, run: str) -> None:
    """SIGKILL."""
    if what == "flow process":
        cell.flow_process(run).kill()
    elif what == "training process":
        os.killpg(cell.training_process(), signal.SIGKILL)
    elif what != "PostgreSQL":
        os.kill(cell.service.pids()[what.split()[0].lower()], signal.SIGKILL)


@contextmanager
def running(home: Path, database: Database | None) -> Iterator[Service]:
    """A service in a home of its own."""
    service = Service(home)
    if database:
        service.environment["DATABASE_URL"] = database.url
    try:
        service.up()
        yield service
    finally:
        service.command("down")


def fill(rows: tuple[str, ...], database: Database | None, results: Path, model: Path) -> None:
    """Fill the cells of these rows that are not filled yet."""
    cells = json.loads(results.read_text()) if results.exists() else {}
    wanted = [(what, when) for what in rows for when in WHEN if f"{what}, {when}" not in cells]
    # There is no training process but in training.
    wanted = [(what, when) for what, when in wanted if what != "training process" or when == WHEN[1]]
    if not wanted:
        return
    home = FOLDER / ("postgresql" if database else "sqlite")
    shutil.rmtree(home, ignore_errors=True)
    with running(home, database) as service:
        quiet = Cell(service, "undisturbed", model)
        assert quiet.ends(quiet.start()) == "COMPLETED"

        def restore(what: str) -> None:
            if database and what == "PostgreSQL":
                database.kill()
                database.start()
            service.up()

        for what, when in wanted:
            begun = time.monotonic()
            cell = Cell(service, f"{what} {when}".replace(" ", "-").lower(), model)
            found = outcome(cell, what, when, lambda what=what: restore(what), quiet.weights())
            cells[f"{what}, {when}"] = {"recovered": found, "seconds": round(time.monotonic() - begun, 1)}
            results.write_text(json.dumps(cells, indent=1))
            print(
                f"{what} killed {when}: {found} ({cells[f'{what}, {when}']['seconds']:.0f} s)",
                file=sys.stderr,
            )


def main() -> None:
    """Fill the matrix, and print it and the JSON line."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    model, results = FOLDER / "model", FOLDER / "cells.json"
    if not model.exists():
        build_tiny_model(model)
    fill(WHAT, None, results, model)
    if Database.present():
        with Database(FOLDER / "database") as database:
            fill(("PostgreSQL",), database, results, model)
    cells = json.loads(results.read_text())
    print(f"{'killed':<18}" + "".join(f"{when:<24}" for when in WHEN))
    for what in (*WHAT, "PostgreSQL"):
        words = (cells.get(f"{what}, {when}", {}).get("recovered", "—") for when in WHEN)
        print(f"{what:<18}" + "".join(f"{word:<24}" for word in words))
    counts = {
        word.replace(" ", "_"): sum(one["recovered"] == word for one in cells.values())
        for word in ("by itself", "by a rerun", "lost")
    }
    print(
        json.dumps({"name": "kill_matrix", "ratio": counts["lost"], "target": 0} | counts | {"cells": cells})
    )
    sys.exit(1 if counts["lost"] else 0)


if __name__ == "__main__":
    main()
