"""Prefect's temporary server, made to outlive Ctrl-C and not to outlive the flow.

Prefect starts it in the flow's own process group: Ctrl-C in a terminal ends the server before the flow has told it so,
and a flow that is killed leaves it behind. Here it has a session of its own and a pipe to the flow, whose other end the
kernel closes however the flow dies. `python -m tasks.core.temporary_server PORT` is that server.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from tasks.core.launching.forking import python_path

_GRACE_S = 10.0


def tie_to_this_process() -> None:
    """Let the temporary server that Prefect starts in this process be one that ends with it.

    Does nothing where a server is configured (`PREFECT_API_URL`) or none may be started.
    """
    from prefect.client.base import ServerType, determine_server_type

    if determine_server_type() == ServerType.EPHEMERAL:
        from prefect.server.api.server import SubprocessASGIServer

        SubprocessASGIServer._run_uvicorn_command = _start  # type: ignore[method-assign, assignment]


def _start(server: Any) -> "subprocess.Popen[Any]":
    """What Prefect's own method starts, on the port that `server` chose."""
    from prefect.settings import get_current_settings

    temporary = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.core.temporary_server", str(server.port)],
        stdin=subprocess.PIPE,
        env={**os.environ, **temporary, **settings, "PYTHONPATH": python_path()},
        start_new_session=True,
    )


def serve(port: int) -> None:
    """Serve Prefect's API on this machine until a signal, or the end of standard input."""
    import uvicorn

    threading.Thread(target=_end_with_launcher, daemon=True, name="launcher-watch").start()
    uvicorn.run(
        "prefect.server.api.server:create_app", factory=True, port=port, log_level="error", lifespan="on"
    )


def _end_with_launcher() -> None:
    while os.read(0, 4096):  # nobody writes: it returns when the pipe's other end is gone
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
