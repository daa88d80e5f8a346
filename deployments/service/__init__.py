"""The service: a Prefect server, an MLflow server and a worker on this machine, with every flow deployed."""
