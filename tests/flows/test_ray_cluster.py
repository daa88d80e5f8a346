"""Flows on a Ray cluster that was there before them, two nodes of it, one of which is lost."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tasks.core.fan_out import FanOutConfig
from tests.flows.sharded import evaluated, write_test
from tests.flows.test_fan_out import OnRay, without_places
from tests.flows.test_mapped_stages import LOUD, TEXTS
from tests.free_port import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.skipif(
        not (find_spec("ray") and find_spec("prefect_ray")), reason="Ray is not installed (the extra `ray`)"
    ),
]


class Cluster:
    """Nodes of one processor each, as `ray start` makes them, all on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.nodes = folder, list[subprocess.Popen[bytes]]()
        self.port, self.client_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.add("--head", f"--port={self.port}", f"--ray-client-server-port={self.client_port}")
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.1)
        self.add(f"--address={self.address}")

    def add(self, *flags: str) -> subprocess.Popen[bytes]:
        """Another node; `--block` keeps it in one process group, which can be killed."""
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", *flags]
        log = (self.folder / f"node-{len(self.nodes)}.log").open("wb")
        # Where a token lies in the home folder, the head would ask for it and the other nodes would not give it.
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        node = subprocess.Popen(
            [*command, "--include-dashboard=false", "--disable-usage-stats"]
            if "--head" in flags
            else command,
            stdout=log,
            stderr=log,
            env=os.environ | settings,
            start_new_session=True,
        )
        self.nodes.append(node)
        return node

    def lose(self, node: subprocess.Popen[bytes]) -> set[int]:
        """Kill a node with all that it started; their process numbers."""
        there = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in there:
            process.send_signal(signal.SIGKILL)
        node.wait(30)
        return {process.pid for process in there}

    def close(self) -> None:
        for node in self.nodes:
            if node.poll() is None:
                self.lose(node)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.mark.parametrize(("by_client", "named"), [(False, True), (True, True), (True, False)])
def test_shards_on_a_cluster_give_what_the_whole_gives(
    cluster, tiny_ref, tmp_path, monkeypatch, by_client, named
):
    """Where the configuration does not name it, the environment does."""
    splits = {"test": write_test(tmp_path)}
    expected = evaluated(tmp_path / "whole", tiny_ref, splits)
    address = f"ray://127.0.0.1:{cluster.client_port}" if by_client else cluster.address
    monkeypatch.setenv("RAY_ADDRESS", "no-such-host.invalid:1" if named else address)
    given = {"ray_address": address} if named else {}
    result = evaluated(tmp_path, tiny_ref, splits, runner="ray", rows_per_shard=8, **given)
    assert without_places(result) == without_places(expected)


def test_the_calls_of_a_node_that_is_lost_run_on_another(cluster, tmp_path):
    mapped, lost = OnRay(tmp_path), set[int]()
    mapped.fan_out = FanOutConfig(runner="ray", ray_address=cluster.address)

    def lose() -> None:
        while len(mapped.lines()) < 2:
            time.sleep(0.05)
        lost.update(cluster.lose(cluster.nodes[1]))
        cluster.add(f"--address={cluster.address}")

    threading.Thread(target=lose, daemon=True).start()
    # A call on each node; both wait for a third to begin, and there is none but the one that begins again.
    assert mapped.run(TEXTS[:2], together=3, at_once=2) == LOUD[:2]
    assert [word for word, _ in mapped.lines()] == ["begin"] * 3 + ["end"] * 2
    begun = [int(line.split()[2]) for line in mapped.diary.read_text().splitlines()]
    assert len(lost & set(begun[:2])) == 1
    assert not lost & set(begun[2:])
    before = mapped.lines()
    assert mapped.run(TEXTS[:2], at_once=2) == LOUD[:2]
    assert mapped.lines() == before
