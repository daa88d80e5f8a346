"""Both servers of `make up` on one PostgreSQL database (Debian's package)."""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_browser import free_port
from tests.flows.test_service import Service

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
PASSWORD = "pa55-never-shown"

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not (BINARIES / "initdb").exists(), reason="PostgreSQL is not installed (apt-get install postgresql)"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg2") is None,
        reason="psycopg2 is not installed (pip install psycopg2-binary)",
    ),
]


def run_as_owner(words: Sequence[str | Path]) -> None:
    """PostgreSQL refuses to run as root: then it is Debian's user that does."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, *map(str, words)], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database."""
    folder, port = Path(tempfile.mkdtemp(prefix="loopwright-postgres-")), free_port()
    password = folder / "password"
    password.write_text(PASSWORD)
    for path in (folder, password):
        path.chmod(0o700)
        if os.geteuid() == 0:
            shutil.chown(path, "postgres")
    data = folder / "data"
    run_as_owner(
        [BINARIES / "initdb", "-D", data, "-U", "ann", "--auth=scram-sha-256", f"--pwfile={password}"]
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run_as_owner([BINARIES / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"])
    yield f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/postgres"
    run_as_owner([BINARIES / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop"])
    shutil.rmtree(folder)


def query(url: str, words: str) -> list[tuple[Any, ...]]:
    async def ask() -> list[tuple[Any, ...]]:
        import asyncpg

        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(words)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_both_servers_migrate_into_schemas_of_their_own_and_keep_what_they_know(database, tmp_path):
    service = Service(tmp_path)
    service.environment["DATABASE_URL"] = database
    try:
        assert set(service.up().values()) == {"started"}
        tables = set(query(database, "SELECT schemaname, tablename FROM pg_tables"))
        both = {("prefect", "flow_run"), ("mlflow", "experiments")}
        assert both | {("prefect", "alembic_version"), ("mlflow", "alembic_version")} <= tables
        assert not [name for schema, name in tables if schema == "public"]
        mlflow = f"http://127.0.0.1:{service.mlflow}/api/2.0/mlflow/experiments"
        made = httpx.post(f"{mlflow}/create", json={"name": "kept"}, timeout=60).json()["experiment_id"]
        deployment = service.get("/deployments/name/llm2llm/demo")

        service.command("down")
        assert service.processes() == []
        assert set(service.up().values()) == {"started"}
        assert service.get("/deployments/name/llm2llm/demo")["id"] == deployment["id"]
        assert httpx.get(f"{mlflow}/get?experiment_id={made}").json()["experiment"]["name"] == "kept"
        assert not list(tmp_path.rglob("*.db"))

        worker = next(process for process in service.processes() if "worker" in process.cmdline())
        assert PASSWORD not in str(worker.environ())
        assert not [process for process in service.processes() if PASSWORD in str(process.cmdline())]
        for file in (tmp_path / "service").iterdir():
            assert PASSWORD not in file.read_text(errors="replace"), file
    finally:
        service.command("down")


def test_a_database_that_does_not_answer_is_a_mistake_that_names_the_variable(tmp_path):
    service = Service(tmp_path)
    service.environment["DATABASE_URL"] = f"postgresql://ann:{PASSWORD}@127.0.0.1:{free_port()}/postgres"
    done = service.command("up")
    assert (done.returncode, "DATABASE_URL: PostgreSQL cannot be used" in done.stderr) == (2, True)
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert service.pids() == {}
