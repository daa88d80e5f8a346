"""Both servers of `make up` on one PostgreSQL database (Debian's package)."""

import asyncio
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.test_service import Service
from tests.free_port import free_port
from tests.postgresql import PASSWORD, Database

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not Database.present(), reason="PostgreSQL is not installed (apt-get install postgresql)"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg2") is None,
        reason="psycopg2 is not installed (pip install psycopg2-binary)",
    ),
]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database."""
    with Database(Path(tempfile.mkdtemp(prefix="loopwright-postgres-"))) as database:
        yield database.url


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
