"""OpenStack Swift's S3 API, from Debian's packages, in a folder of its own: a real object store, on one machine.

One replica, the storage servers on loopback, s3api and tempauth in the proxy's pipeline. By hand:

    python -m tests.swift_server build/swift      # prints what to export, runs until Ctrl-C
"""

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.free_port import free_port

STORAGE = ("account", "container", "object")
PROGRAMS = (*(f"swift-{kind}-server" for kind in ("proxy", *STORAGE)), "swift-ring-builder", "memcached")
PACKAGES = ("swift-proxy", "swift-account", "swift-container", "swift-object", "memcached")
KEY, SECRET = "test:tester", "testing"

SWIFT_CONF = """[swift-hash]
swift_hash_path_prefix = loopwright
swift_hash_path_suffix = loopwright
[storage-policy:0]
name = Policy-0
default = yes
"""
STORAGE_CONF = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
devices = {folder}/devices
swift_dir = {folder}
mount_check = false
user = {user}
workers = {workers}
log_level = WARNING
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60
"""
# The times of a busy machine: what a container is not told in time it is told later, by a process that is not run here.
HEAD_LENGTH = """
def filter_factory(settings, **own):
    def wrap(app):
        def answer(environ, start_response):
            def start(status, headers, *more):
                if environ["REQUEST_METHOD"] == "HEAD" and not any(n.lower() == "content-length" for n, _ in headers):
                    headers = [*headers, ("Content-Length", "0")]
                return start_response(status, headers, *more)
            return app(environ, start)
        return answer
    return wrap
"""
# Without it Swift 2.30 ends its answer to a HEAD of what is not there with an empty chunk, which the clients that wait
# for no body (aiohttp, and so s3fs) take for the beginning of the next answer.

PROXY_CONF = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
user = {user}
workers = {workers}
log_level = WARNING
[pipeline:main]
pipeline = head_length catch_errors cache s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 60
recoverable_node_timeout = 60
[filter:head_length]
paste.filter_factory = head_length:filter_factory
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
"""


class Swift:
    """An object store that is there within a `with` block, and forgets everything at its end."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.folder, self._workers = folder.absolute(), workers
        self.ports = {kind: free_port() for kind in ("proxy", "memcached", *STORAGE)}
        self.address = f"http://127.0.0.1:{self.ports['proxy']}"
        self._processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def missing() -> str:
        """What has to be installed for this; empty when everything is there."""
        absent = [program for program in PROGRAMS if not _program(program)]
        return f"no {', '.join(absent)}: apt-get install {' '.join(PACKAGES)}" if absent else ""

    @property
    def environment(self) -> dict[str, str]:
        """What clients read: address and keys. Swift of Debian 12 knows no checksums behind a body."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "devices" / "d1").mkdir(parents=True)
        (self.folder / "swift.conf").write_text(SWIFT_CONF)
        values = {"folder": self.folder, "user": getpass.getuser(), "workers": self._workers}
        (self.folder / "head_length.py").write_text(HEAD_LENGTH)
        for kind in STORAGE:
            self._ring(kind)
            text = STORAGE_CONF.format(kind=kind, port=self.ports[kind], **values)
            (self.folder / f"{kind}.conf").write_text(text)
        text = PROXY_CONF.format(port=self.ports["proxy"], memcached=self.ports["memcached"], **values)
        (self.folder / "proxy.conf").write_text(text)
        try:
            self._start(
                "memcached", "-u", getpass.getuser(), "-l", "127.0.0.1", "-p", str(self.ports["memcached"])
            )
            for kind in (*STORAGE, "proxy"):
                self._start(f"swift-{kind}-server", str(self.folder / f"{kind}.conf"), "-v")
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def bucket(self, name: str) -> None:
        """Make an empty bucket."""
        import boto3

        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.environment.items():
                patch.setenv(variable, value)
            boto3.client("s3").create_bucket(Bucket=name)

    def _ring(self, kind: str) -> None:
        builder = f"{kind}.builder"
        device = f"r1z1-127.0.0.1:{self.ports[kind]}/d1"
        for words in (("create", "4", "1", "0"), ("add", device, "1"), ("rebalance",)):
            command = [_program("swift-ring-builder"), builder, *words]
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def _start(self, program: str, *words: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["PYTHONPATH"] = str(self.folder)
        with (self.folder / f"{program}.log").open("wb") as log:
            self._processes.append(
                # A group of its own: Swift's servers end their workers by ending their whole group.
                subprocess.Popen(
                    [_program(program), *words],
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            )

    def _wait(self) -> None:
        """Until the proxy answers a client of its own; Swift's servers take seconds to import."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=15),
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                client.list_buckets()
                return
            except (BotoCoreError, ClientError):
                if time.monotonic() > deadline or any(one.poll() is not None for one in self._processes):
                    logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
                    raise RuntimeError(f"Swift does not start:\n{logs}") from None
            time.sleep(0.2)

    def _stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers too, whatever became of it
            process.wait()
        self._processes.clear()


def _program(name: str) -> str:
    """Where Debian's program lies, not one of a virtual environment; empty when it is not installed."""
    return shutil.which(name, path="/usr/bin:/usr/sbin:/bin") or ""


if __name__ == "__main__":
    with Swift(Path(sys.argv[1] if len(sys.argv) > 1 else "build/swift")) as swift:
        swift.bucket("loopwright")
        print(" ".join(["export", *(f"{name}={value}" for name, value in swift.environment.items())]))
        print("bucket: s3://loopwright", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping")
