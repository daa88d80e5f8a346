"""Who holds a port."""

import socket

import psutil

from tasks.core.errors import UserError


def check_free(host: str, port: int, *, field: str) -> None:
    """Raise UserError, naming the process if it can be seen, when something already listens at `host`:`port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections that just ended are no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} is taken{_holder(port)} ({error.strerror})",
                field=field,
                mend=f"end that, or choose another port: {field}={port + 1}",
            ) from error


def _holder(port: int) -> str:
    """ " by NAME (process ID)", or nothing where this user may not see it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        listens_at = getattr(connection.laddr, "port", 0) if connection.status == psutil.CONN_LISTEN else 0
        if listens_at == port and connection.pid:
            try:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
            except psutil.NoSuchProcess:
                return ""
    return ""
