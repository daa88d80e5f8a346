"""The limits on Prefect's server that let the stages of all runs share the GPU."""

from deployments.service.config import ServiceConfig
from deployments.service.stack import call
from tasks.core.slots import GPU_SLOTS, NEXT_IN_LINE

_UNDER_WAY = ["RUNNING", "PENDING", "CANCELLING"]


def prepare_slots(config: ServiceConfig) -> None:
    """Make the limits where there are none, with the number of slots that is configured, or else one.

    A number that a person gave it on the page stays, unless one is configured. While no run is under way no slot can be
    taken: what killed runs and servers left behind is done away with, by new limits, which their leases do not know.
    """
    for name, wanted in ((GPU_SLOTS, config.gpu_slots), (NEXT_IN_LINE, 1)):
        answer = call(config, "GET", f"/v2/concurrency_limits/{name}")
        there = None if answer.status_code == 404 else answer.raise_for_status().json()
        if there and there["active_slots"] and not _runs_under_way(config):
            call(config, "DELETE", f"/v2/concurrency_limits/{name}").raise_for_status()
            wanted, there = wanted or there["limit"], None
        if there is None:
            call(
                config, "POST", "/v2/concurrency_limits/", {"name": name, "limit": wanted or 1}
            ).raise_for_status()
        elif wanted and there["limit"] != wanted:
            call(config, "PATCH", f"/v2/concurrency_limits/{name}", {"limit": wanted}).raise_for_status()


def _runs_under_way(config: ServiceConfig) -> bool:
    body = {"flow_runs": {"state": {"type": {"any_": _UNDER_WAY}}}, "limit": 1}
    return bool(call(config, "POST", "/flow_runs/filter", body).raise_for_status().json())
