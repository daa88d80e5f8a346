"""Where the two servers keep their records: a SQLite file each, or a PostgreSQL schema each in one database.

Both name tables alike (`alembic_version` above all), so one schema for both would break the migrations of either.
"""

import asyncio
import importlib.util
from urllib.parse import quote, urlsplit, urlunsplit

from deployments.service.config import ServiceConfig
from tasks.core.errors import UserError

PREFECT_SCHEMA, MLFLOW_SCHEMA = "prefect", "mlflow"


def prefect_database(config: ServiceConfig) -> dict[str, str]:
    """The environment that tells Prefect's server its database."""
    if not config.database:
        return {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{config.home}/prefect/prefect.db"
        }
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _with_driver(config.database, "asyncpg"),
        # `public` holds the extension for text search that its migrations ask for.
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH": f"{PREFECT_SCHEMA},public",
    }


def mlflow_database(config: ServiceConfig) -> dict[str, str]:
    """The environment that tells MLflow's server its database; a command line would show the password to `ps`."""
    if not config.database:
        return {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{config.home}/mlflow.db"}
    path = quote(f"-csearch_path={MLFLOW_SCHEMA}")
    return {"MLFLOW_BACKEND_STORE_URI": _with_driver(config.database, "psycopg2", f"options={path}")}


def prepare_database(config: ServiceConfig) -> None:
    """Make PostgreSQL's schemas and the extension that Prefect needs; the servers migrate their tables themselves.

    Does nothing without a database. Raises UserError when it cannot be reached or a driver is missing.
    """
    if not config.database:
        return
    if importlib.util.find_spec("psycopg2") is None:
        raise UserError(
            "MLflow's driver for PostgreSQL is not installed",
            field="DATABASE_URL",
            mend="pip install psycopg2-binary",
        )
    asyncio.run(_prepare(config.database))


async def _prepare(url: str) -> None:
    import asyncpg  # type: ignore[import-untyped]

    try:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for schema in (PREFECT_SCHEMA, MLFLOW_SCHEMA):
                await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            await connection.execute('CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA "public"')
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UserError(
            f"PostgreSQL cannot be used: {error or 'it does not answer'}",
            field="DATABASE_URL",
            mend="start it, create the database, and let its user create schemas",
        ) from error


def _with_driver(url: str, driver: str, query: str = "") -> str:
    parts = urlsplit(url)
    both = "&".join(filter(None, (parts.query, query)))
    return urlunsplit((f"postgresql+{driver}", parts.netloc, parts.path, both, ""))
