"""A proxy in front of an S3 server that misbehaves as a test says: a real server, real sockets, real cuts."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "server", "date"}
_ALLOWED_SKEW = timedelta(minutes=15)


@dataclass(frozen=True)
class Seen:
    """A request as it came; `again` counts earlier ones for the very same thing."""

    method: str
    target: str
    headers: dict[str, str]
    again: int


@dataclass(frozen=True)
class Fault:
    """What happens to a request: it waits, is refused, or its connection is cut after some bytes of a body."""

    delay_s: float = 0.0
    status: int = 0
    code: str = ""
    cut_request: int = -1
    cut_response: int = -1
    ahead: timedelta = timedelta()
    """How far the server's clock is before ours."""


class FaultyS3:
    """Within a `with` block AWS_ENDPOINT_URL names the proxy; `fault` decides over every request."""

    def __init__(self, upstream: str, fault: Callable[[Seen], Fault | None]) -> None:
        self._upstream, self.fault = urlsplit(upstream).netloc, fault
        self.seen: list[Seen] = []
        self._lock, self._patch = threading.Lock(), pytest.MonkeyPatch()

    def note(self, method: str, target: str, headers: dict[str, str]) -> Seen:
        """Count a request."""
        with self._lock:
            same = (method, target, headers.get("range", ""))
            again = sum((one.method, one.target, one.headers.get("range", "")) == same for one in self.seen)
            self.seen.append(Seen(method, target, headers, again))
            return self.seen[-1]

    def __enter__(self) -> Self:
        import s3fs

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, self._upstream))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._server.server_port}")
        s3fs.S3FileSystem.clear_instance_cache()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import s3fs

        self._server.shutdown()
        self._server.server_close()
        self._patch.undo()
        s3fs.S3FileSystem.clear_instance_cache()


def wrong_key(right: str) -> Callable[[Seen], Fault | None]:
    """Refuse every key but one, as S3 does."""
    return lambda seen: (
        None
        if f"Credential={right}/" in seen.headers.get("authorization", "")
        else Fault(status=403, code="InvalidAccessKeyId")
    )


def other_clock(ahead: timedelta) -> Callable[[Seen], Fault | None]:
    """A server whose clock is ahead: it refuses, as S3 does, what was signed more than 15 minutes from its time."""

    def fault(seen: Seen) -> Fault | None:
        signed = datetime.strptime(seen.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        apart = abs(datetime.now(UTC) + ahead - signed)
        return Fault(status=403, code="RequestTimeTooSkewed", ahead=ahead) if apart > _ALLOWED_SKEW else None

    return fault


def _handler(proxy: FaultyS3, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault = proxy.fault(proxy.note(self.command, self.path, headers)) or Fault()
            sleep(fault.delay_s)
            length = int(headers.get("content-length", 0))
            if headers.get("expect"):
                self.send_response_only(100)
                self.end_headers()
            if fault.cut_request >= 0 and length > fault.cut_request:
                self.rfile.read(fault.cut_request)
                return self._cut()
            body = self.rfile.read(length)
            if fault.status:
                return self._refuse(fault)
            status, answered, content = self._forward(headers, body)
            self.send_response_only(status)
            for name, value in answered:
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            size = next((value for name, value in answered if name.lower() == "content-length"), len(content))
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if 0 <= fault.cut_response < len(content):
                self.wfile.write(content[: fault.cut_response])
                return self._cut()
            self.wfile.write(content)
            return None

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        def _forward(self, headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(upstream, timeout=60)
            try:
                kept = {name: value for name, value in headers.items() if name not in (_HOP | {"expect"})}
                connection.request(self.command, self.path, body or None, kept)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _refuse(self, fault: Fault) -> None:
            text = (
                f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()
            )
            self.send_response_only(fault.status)
            self.send_header("Date", format_datetime(datetime.now(UTC) + fault.ahead, usegmt=True))
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def _cut(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

        def log_message(self, *words: Any) -> None: ...

    return Handler
