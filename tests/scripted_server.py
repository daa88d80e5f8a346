"""A small real HTTP server that speaks the OpenAI protocol and answers as a test scripts it."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Reply:
    """What the server does with a request: wait, then drop the connection or send an answer."""

    status: int = 200
    body: dict[str, Any] | str = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False


@dataclass(frozen=True)
class Request:
    """A prompt as it arrived; `time` is of the monotonic clock."""

    json: dict[str, Any]
    headers: dict[str, str]
    time: float

    @property
    def prompt(self) -> str:
        """The content of the last message."""
        return self.json["messages"][-1]["content"]


Script = Sequence[Reply] | Callable[[dict[str, Any]], Reply]
"""Replies in order of arrival, or a function from the JSON of a request to its reply."""


def completion(
    text: str | None, finish_reason: str = "stop", tokens: tuple[int, int] | None = (3, 2), **reply: Any
) -> Reply:
    """A reply with one chat completion; `tokens` are of prompt and completion, None leaves `usage` out."""
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {"choices": [{"index": 0, "finish_reason": finish_reason, "message": message}]}
    if tokens:
        body["usage"] = {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        }
    return Reply(body=body, **reply)


def refusal(status: int, message: str, code: str | None = None, **reply: Any) -> Reply:
    """A reply with an error in OpenAI's form."""
    return Reply(status, {"error": {"message": message, "code": code}}, **reply)


def echo(request: dict[str, Any]) -> Reply:
    """A completion that repeats the last message in capitals."""
    return completion(request["messages"][-1]["content"].upper())


class ScriptedServer:
    """Runs in a thread inside a `with` block, and listens from there on if not before (`listening`); `requests` and
    `peak_concurrency` tell what it has seen."""

    def __init__(
        self,
        script: Script = echo,
        models: Sequence[str] | Reply = ("scripted",),
        *,
        port: int = 0,
        listening: bool = True,
    ) -> None:
        self.script, self.models = script, models
        self.requests: list[Request] = []
        self.peak_concurrency = 0
        self._active = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler(), bind_and_activate=listening)
        self._listening = listening
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Address of the API, to be put into a configuration."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._http.server_port

    def __enter__(self) -> Self:
        if not self._listening:
            self._http.server_bind()
            self._http.server_activate()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _list_models(self) -> Reply:
        if isinstance(self.models, Reply):
            return self.models
        return Reply(
            body={"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        )

    def _complete(self, request: Request) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self._active += 1
            self.peak_concurrency = max(self.peak_concurrency, self._active)
        try:
            reply = self.script(request.json) if callable(self.script) else self.script[number]
            self._stopping.wait(reply.delay_s)
        finally:
            with self._lock:
                self._active -= 1
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._send(
                    server._list_models() if self.path == "/v1/models" else refusal(404, "no such path")
                )

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    self._send(refusal(404, "no such path"))
                    return
                self._send(server._complete(Request(body, dict(self.headers), time.monotonic())))

            def _send(self, reply: Reply) -> None:
                self.close_connection = self.close_connection or reply.drop
                if reply.drop or server._stopping.is_set():
                    return
                body = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                content = body.encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test output quiet."""

        return Handler
