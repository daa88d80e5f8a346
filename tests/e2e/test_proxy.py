"""infra/proxy before two servers: TLS, a password for everything, and nothing for pages of other sites."""

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.free_port import free_port

CONFIGURATION = Path(__file__).parents[2] / "infra" / "proxy" / "nginx.conf"
nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
pytestmark = pytest.mark.skipif(nginx is None, reason="nginx is not installed")


class Server:
    """A server that answers with the headers it was sent."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = "\n".join(f"{name}: {value}" for name, value in self.headers.items()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *values: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """The proxy's two addresses, and the ports of what is behind each."""
    folder = tmp_path_factory.mktemp("proxy")
    behind = {"4200": Server(), "5000": Server()}
    ports = {"4443": free_port(), "5443": free_port()}
    text = CONFIGURATION.read_text()
    for given, server in behind.items():
        text = text.replace(f"127.0.0.1:{given}", f"127.0.0.1:{server.port}")
    for given, port in ports.items():
        text = text.replace(f"listen {given} ssl", f"listen 127.0.0.1:{port} ssl")
    (folder / "nginx.conf").write_text(text)
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "secret"], capture_output=True, text=True, check=True
    )
    (folder / "users").write_text(f"ann:{hashed.stdout}")
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(made, capture_output=True, check=True)
    program = [
        str(nginx),
        "-p",
        str(folder),
        "-c",
        "nginx.conf",
        "-e",
        "stderr",
        "-g",
        "daemon off; user root;",
    ]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    secure = {"prefect": f"https://localhost:{ports['4443']}", "mlflow": f"https://localhost:{ports['5443']}"}
    trusted = str(folder / "certificate.pem")
    deadline = time.monotonic() + 30
    while True:
        try:
            get(secure["prefect"], trusted)
            break
        except httpx.ConnectError:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield secure | {"trusted": trusted}, {"prefect": behind["4200"].port, "mlflow": behind["5000"].port}
    process.terminate()
    process.wait()


def get(address: str, trusted: str, **more: object) -> httpx.Response:
    context = ssl.create_default_context(cafile=trusted)
    return httpx.get(f"{address}/api/health", verify=context, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_who_gives_no_password_gets_nothing_and_who_does_reaches_the_server_as_this_machine(addresses, name):
    secure, behind = addresses
    ask = lambda **more: get(secure[name], secure["trusted"], **more)  # noqa: E731
    assert ask().status_code == 401
    assert ask(auth=("ann", "wrong")).status_code == 401
    answer = ask(auth=("ann", "secret"))
    assert answer.status_code == 200
    assert f"Host: 127.0.0.1:{behind[name]}" in answer.text
    assert "Authorization" not in answer.text
    own, foreign = secure[name], "https://evil.example"
    assert ask(auth=("ann", "secret"), headers={"Origin": own}).status_code == 200
    assert ask(auth=("ann", "secret"), headers={"Origin": foreign}).status_code == 403
    plain = secure[name].replace("https", "http")
    assert httpx.get(plain, auth=("ann", "secret")).status_code == 400  # a password never goes in the clear
