"""The task runner that a run's mapped stages are submitted to, started when it is first needed."""

import os
import re
import signal
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tasks.core.errors import StageFailed, UserError
from tasks.core.fan_out import FanOutConfig
from tasks.core.launching.forking import python_path
from tasks.core.settings import home

_OBJECT_STORE_BYTES = 100_000_000
"""Of a Ray that is started here; it would reserve a third of the memory, and nothing large goes through it."""
_LOST_NODES = 3
"""How often Ray itself runs a call again whose machine or worker is gone: its own default."""
_STARTS = 3
"""Ray gives itself 30 seconds to start, which are not enough on a busy machine."""
_INHERITED = re.compile(r"(LOOPWRIGHT|AWS|HF|TRANSFORMERS|PREFECT_API)_\w+|DO_NOT_TRACK")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|AUTH|CREDENTIAL")


class FanOut:
    """Where a run's mapped stages run."""

    def __init__(self, config: FanOutConfig, *, retries: int = 0, keys: tuple[str, ...] = ()) -> None:
        """`keys` are environment variables that hold keys of servers, which calls on other machines need as well."""
        self.config = config
        self._retries, self._keys = retries, keys
        self._stack = ExitStack()
        self._runner: Any = None

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Within the block the present flow run submits its tasks to this runner; for threads it is the flow's own.

        Raises UserError when Ray cannot be started or connected to.
        """
        from prefect.client.orchestration import get_client
        from prefect.context import FlowRunContext
        from prefect.settings import PREFECT_API_URL, temporary_settings

        flow_run = FlowRunContext.get()
        if self.config.runner == "threads" or flow_run is None:
            yield
            return
        with get_client(sync_client=True) as client:
            server = str(client.api_url).rstrip("/")
        with ExitStack() as stack:
            # Without its address every process would start a temporary server of its own.
            stack.enter_context(temporary_settings({PREFECT_API_URL: server}))
            if self._runner is None:
                self._runner = self._stack.enter_context(self._start(server))
            stack.enter_context(flow_run.model_copy(update={"task_runner": self._runner}))
            if self.config.runner == "ray":
                from prefect_ray.context import remote_options

                room = {"num_cpus": self.config.cpus_per_task, "num_gpus": self.config.gpus_per_task}
                stack.enter_context(remote_options(**room, max_retries=max(self._retries, _LOST_NODES)))
            yield

    def close(self) -> None:
        """End the runner, and Ray where it was started here."""
        self._runner = None
        self._stack.close()

    @contextmanager
    def _start(self, server: str) -> Iterator[Any]:
        if self.config.runner == "processes":
            from prefect.task_runners import ProcessPoolTaskRunner

            with ProcessPoolTaskRunner(max_workers=self.config.most_at_once) as pool:
                yield pool
            return
        runner = _started(self.config.cluster, server, self._keys)
        try:
            yield runner
        finally:
            runner.__exit__(None, None, None)


def environment(
    server: str, keys: tuple[str, ...], *, elsewhere: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """What calls on a cluster need of this process's environment: what may be seen, and what is secret."""
    found = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name) or name in keys}
    secret = {
        name: value for name, value in found.items() if name in keys or _SECRET.search(name) or "@" in value
    }
    libraries = sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"]
    own = [entry for entry in python_path().split(os.pathsep) if not entry.startswith(libraries)]
    seen = {name: value for name, value in found.items() if name not in secret}
    seen |= {"PREFECT_API_URL": server, "PYTHONPATH": os.pathsep.join(own), "RAY_USAGE_STATS_ENABLED": "0"}
    if not elsewhere or "LOOPWRIGHT_HOME" in os.environ:
        seen["LOOPWRIGHT_HOME"] = str(home())
    return seen, secret


def lost_worker(error: BaseException, stage: str) -> StageFailed | None:
    """What is to be told of an error of Ray's own: a worker that was gone as often as Ray tried, or that could not
    begin. None for every other error."""
    if not type(error).__module__.startswith("ray."):
        return None
    words = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"Ray gave it up ({type(error).__name__}): {words[-1] if words else ''}"
    mend = "every machine of the cluster needs loopwright of this version, and memory for the model"
    return StageFailed(stage, reason, mend=mend, log_tail="\n".join(words[-10:]))


def _started(address: str, server: str, keys: tuple[str, ...]) -> Any:
    """A task runner that is connected to the cluster, or has started Ray here. Raises UserError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    if address and os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray itself does, other than for ray://
    import ray

    variables = environment(server, keys, elsewhere=bool(address))
    for left in reversed(range(1 if address else _STARTS)):
        runner = _ray_runner(address, variables)
        try:
            with _own_sigterm():
                runner.__enter__()
            break
        except Exception as error:  # Ray raises any kind of it, Exception itself among them
            ray.shutdown()
            if not left:
                said = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
                raise UserError(
                    f"Ray cannot be used: {' '.join(dict.fromkeys((said[0], said[-1])))}",
                    field="fan_out.ray_address" if address else "fan_out.runner",
                    mend="its machines need the versions of Python and Ray that are used here; one that asks for a "
                    "token needs RAY_AUTH_MODE=token in the environment, and its token in RAY_AUTH_TOKEN or "
                    "~/.ray/auth_token"
                    if address
                    else "start it by hand where it says more (`ray start --head`), and give its address",
                ) from error
    return runner


def _ray_runner(address: str, variables: tuple[dict[str, str], dict[str, str]]) -> Any:
    from prefect_ray import RayTaskRunner

    seen, secret = variables

    def work(*references: Any, **call: Any) -> Any:
        # Not in the runtime environment: Ray writes that into log files which everybody may read.
        os.environ.update(secret)
        return RayTaskRunner._run_prefect_task(*references, **call)

    options: dict[str, Any] = {
        "runtime_env": {"env_vars": seen},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if not address:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    runner = RayTaskRunner(address=address or None, init_kwargs=options)
    runner._run_prefect_task = work
    return runner


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place of ours, or of Prefect's, by which a run is cancelled."""
    here = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, handler)
