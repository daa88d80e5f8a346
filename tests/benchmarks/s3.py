"""A model folder to S3 and back by the store's transfers, against a plain copy, file by file, over the same endpoint.

    python -m tests.benchmarks.s3 [--mib 1024] [--rounds 1] [--endpoint URL --bucket NAME]

Four files hold 15 of 16 bytes, files of 1 to 127 KiB (a thousand for 1 GiB) the rest, drawn from one seed. The plain
side is s3fs's `put_file` and `get_file`, one file after the other; ours is `Store.publish` and `fetch` into an empty
cache, digests and manifest included, on the same bytes, in turn. The digests of the folders that come down are
compared outside of the time. Without --endpoint OpenStack Swift is started, which Debian's packages bring (`apt-get
install swift-proxy swift-account swift-container swift-object memcached`), on the same cores as both sides; with it the
keys are those of the environment and the bucket has to exist. What was copied there is removed at the end.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tasks.core.digests import folder_digest, folder_files
from tasks.core.references import ModelRef
from tasks.core.settings import transfers_at_once
from tasks.core.store import Manifest, Store, fetch
from tests.swift_server import Swift

SEED = 20240322
TARGET = 1.5
LARGE_FILES, SMALL_SHARE, SMALL_KIB = 4, 16, 64
MIB = 1 << 20
DIRECTIONS = ("up", "down")


def generate(folder: Path, mib: int) -> None:
    """Write the model folder of so many MiB."""
    draw = random.Random(SEED)
    folder.mkdir(parents=True)
    for number in range(LARGE_FILES):
        with (folder / f"model-{number:05}.safetensors").open("wb") as file:
            for begin in range(0, size := (mib - mib // SMALL_SHARE) * MIB // LARGE_FILES, MIB):
                file.write(draw.randbytes(min(MIB, size - begin)))
    for number in range(mib * 1024 // SMALL_SHARE // SMALL_KIB):
        part = folder / f"part-{number % 10}"
        part.mkdir(exist_ok=True)
        size = draw.randrange(1, 2 * SMALL_KIB) * 1024
        (part / f"{number:05}.bin").write_bytes(draw.randbytes(size))


def plain_up(files: Any, folder: Path, address: str) -> None:
    """Every file, one after the other."""
    for path in folder_files(folder):
        files.put_file(str(path), f"{address}/{path.relative_to(folder).as_posix()}")


def plain_down(files: Any, address: str, target: Path) -> None:
    """Every file, one after the other."""
    root = files._strip_protocol(address)
    for path in files.find(address):
        local = target / path[len(root) + 1 :]
        local.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(local))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds on the clock, and the result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def measure(root: str, scratch: Path, digest: str, rounds: int) -> dict[tuple[str, str], float]:
    """Seconds by side and direction. Ends the program when anything comes back changed."""
    import fsspec

    files, store, out = fsspec.core.url_to_fs(root)[0], Store(f"{root}/store"), scratch / "out"
    store.check()
    seconds: dict[tuple[str, str], float] = {}

    def add(side: str, direction: str, work: Callable[[], Any]) -> Any:
        taken, result = timed(work)
        seconds[side, direction] = seconds.get((side, direction), 0.0) + taken
        print(f"{side:6} {direction:5}{taken:9.1f} s", flush=True)
        return result

    for number in range(rounds):
        plain, back = f"{root}/plain-{number}", scratch / "plain"
        add("plain", "up", lambda plain=plain: plain_up(files, out / "model", plain))
        manifest: Manifest = add(
            "ours", "up", lambda number=number: store.publish("bench", f"{number}", out, {})
        )
        add("plain", "down", lambda plain=plain, back=back: plain_down(files, plain, back))
        ref = ModelRef(uri=f"{store.attempt_uri(manifest)}/model", digest=digest)
        fetched: Path = add("ours", "down", lambda ref=ref: fetch(ref))
        if not folder_digest(back) == folder_digest(fetched) == digest:
            sys.exit("what came down is not what went up")
        shutil.rmtree(back)
        shutil.rmtree(fetched)
    return seconds


def main() -> None:
    """Measure both sides and print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=1024, help="size of the folder")
    parser.add_argument("--rounds", type=int, default=1, help="how often both sides take their turn")
    parser.add_argument("--endpoint", default="", help="an S3 endpoint; without one Swift is started")
    parser.add_argument("--bucket", default="loopwright", help="a bucket there")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="loopwright-s3-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        os.environ["LOOPWRIGHT_HOME"] = str(scratch / "home")
        if given.endpoint:
            os.environ["AWS_ENDPOINT_URL"] = given.endpoint
        elif missing := Swift.missing():
            sys.exit(missing)
        else:
            swift = stack.enter_context(Swift(scratch / "swift"))
            swift.bucket(given.bucket)
            os.environ |= swift.environment
        root = f"s3://{given.bucket}/bench-{uuid.uuid4().hex[:8]}"
        generate(scratch / "out" / "model", given.mib)
        count = len(folder_files(scratch / "out" / "model"))
        digest = folder_digest(scratch / "out" / "model")
        print(
            f"{given.mib} MiB in {count:,} files (seed {SEED}); {len(os.sched_getaffinity(0))} cores",
            flush=True,
        )
        if given.endpoint:
            stack.callback(Store(root).remove, "")
        seconds = measure(root, scratch, digest, given.rounds)
    print(f"\n{'':6}{'plain s':>10}{'ours s':>10}{'ratio':>8}{'ours MiB/s':>12}")
    figures: dict[str, Any] = {"name": "s3"}
    for direction in DIRECTIONS:
        plain, ours = seconds["plain", direction], seconds["ours", direction]
        print(
            f"{direction:6}{plain:10.1f}{ours:10.1f}{plain / ours:8.2f}{given.mib * given.rounds / ours:12.1f}"
        )
        figures |= {
            f"{direction}_ratio": plain / ours,
            f"{direction}_plain_s": plain,
            f"{direction}_ours_s": ours,
        }
    figures |= {
        "ratio": min(figures["up_ratio"], figures["down_ratio"]),
        "target": TARGET,
        "mib": given.mib,
        "files": count,
        "at_once": transfers_at_once(),
        "cores": len(os.sched_getaffinity(0)),
        "identical": True,
        "seed": SEED,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
