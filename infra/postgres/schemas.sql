-- What `make up` makes in a database that is given (deployments/service/databases.py): a schema for each server, which
-- name tables alike, and the extension that Prefect's migrations ask for.
CREATE SCHEMA IF NOT EXISTS prefect;
CREATE SCHEMA IF NOT EXISTS mlflow;
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
