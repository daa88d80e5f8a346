"""What the launch tests run in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tasks.core.errors import DamagedArtifact, UserError

Report = Callable[[dict[str, Any]], None]


def echo(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    (out / "file.txt").write_text("written")
    modules = [name for name in ("decimal", "torch") if name in sys.modules]
    process = {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "preloaded": modules}
    return {
        "config": config,
        "inputs": inputs,
        "process": process,
        "variable": os.environ.get("OF_THE_CALLER"),
    }


def steps(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """Reports a step, then waits until the caller has seen it (it answers with a file) before the next."""
    for step in range(config["steps"]):
        report({"step": step, "train/loss": 1 / (step + 1)})
        while config["answer"] and not (out / f"seen-{step}").exists():
            time.sleep(0.01)
    return {"steps": config["steps"]}


def patience(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """How long the torchrun that started this waits for ranks which were asked to end, as torch itself reads it."""
    from torch.distributed.launcher.api import LaunchConfig

    return {"seconds": LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=1).shutdown_timeout}


def half_line(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    report({"step": 0})
    with (out.parent / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "train/lo')
    return {}


def user_error(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    raise UserError("no column 'label'", field="data.train", mend="Name a column of the file.")


def damaged(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    raise DamagedArtifact("s3://store/model", "weights.bin", "another digest")


def crash(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    for line in range(100):
        print("line", line)
    raise RuntimeError(config["message"])


def exit_early(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    print("going home")
    sys.stdout.flush()
    os._exit(0)


def kill_itself(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    os.kill(os.getpid(), config["signal"])
    return {}


def unspeakable(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    return {"result": object()}


def sleep(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """Starts a grandchild that sleeps, tells both process ids, and sleeps itself; may refuse SIGTERM."""
    if config.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pids = [os.getpid(), grandchild.pid]
    temporary = out / f"writing-{os.getpid()}"
    temporary.write_text(json.dumps(pids))
    temporary.rename(out / f"pids-{os.environ.get('RANK', '0')}.json")
    report({"pids": pids})
    time.sleep(config["seconds"])
    return {"pids": pids}


def hold_the_interpreter(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report
) -> dict[str, Any]:
    """Keeps every other thread of its process from running for a very long time."""
    (out / "pids-0.json").write_text(json.dumps([os.getpid()]))
    report({})
    re.match(r"(a+)+$", "a" * 60 + "b")
    return {}


def save_when_told(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report
) -> dict[str, Any]:
    def save(number: int, frame: object) -> None:
        time.sleep(0.5)
        (out / "saved").touch()
        os._exit(1)

    signal.signal(signal.SIGTERM, save)
    time.sleep(600)
    return {}


def look(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    return {"found": (out / config["file"]).exists()}


def leave_the_group(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report
) -> dict[str, Any]:
    """Forks a process that no signal to the group reaches and that ends a second later."""
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(tell, b".")
        time.sleep(1)
        (out / "ended").touch()
        os._exit(0)
    os.read(ready, 1)
    return {}


def memory(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """Takes memory and never gives it back."""
    held = bytearray(config["bytes"])
    return {"held": len(held), "pid": os.getpid()}


def take_turns(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """Fails when another process is inside at the same time."""
    inside = out / "inside"
    inside.touch(exist_ok=False)
    time.sleep(0.3)
    inside.unlink()
    return {"pid": os.getpid()}


def resume(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """Saves a checkpoint and is killed; the next attempt goes on from it."""
    checkpoint = out.parent / "checkpoints" / "step"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    report({"step": first})
    if first == 0:
        checkpoint.parent.mkdir()
        checkpoint.write_text("7")
        print("the first attempt")
        os.kill(os.getpid(), signal.SIGKILL)
    print("the second attempt")
    return {"first": first}


def all_reduce(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    import torch
    import torch.distributed as distributed

    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    total = torch.tensor([10.0**rank])
    distributed.all_reduce(total)
    report({"rank": rank})
    result = {"sum": total.item(), "rank": rank, "world": distributed.get_world_size()}
    distributed.destroy_process_group()
    return {**result, "device": os.environ.get("DS_ACCELERATOR"), "threads": os.environ["OMP_NUM_THREADS"]}


def accelerate_environment(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report
) -> dict[str, Any]:
    """What this rank would be told by accelerate's launcher, and how many there are."""
    told = {name: value for name, value in os.environ.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
    return {"told": told, "world": int(os.environ["WORLD_SIZE"])}


def compute(config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report) -> dict[str, Any]:
    """Uses every pool of threads and processes that a fork can break: OpenBLAS, OpenMP, autograd, workers."""
    preloaded = {"torch", "transformers", "peft", "trl.trainer.sft_trainer"} <= sys.modules.keys()
    import numpy as np
    import torch

    product = np.ones((512, 512)) @ np.ones((512, 512))
    torch.set_num_threads(2)
    weights = torch.ones(512, 512, requires_grad=True)
    (weights @ torch.ones(512, 512)).sum().backward()
    assert weights.grad is not None
    loader = torch.utils.data.DataLoader(range(8), batch_size=2, num_workers=2)
    return {
        "preloaded": preloaded,
        "product": float(product.sum()),
        "gradient": float(weights.grad.sum()),
        "batches": [int(batch.sum()) for batch in loader],
    }


def second_rank_fails(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Report
) -> dict[str, Any]:
    if os.environ["RANK"] == "1":
        if config["signal"]:
            os.kill(os.getpid(), config["signal"])
        raise RuntimeError("the second rank gave up")
    time.sleep(600)
    return {}


def all_dead(pids: list[int], patience_s: float = 20) -> bool:
    """Whether all of these processes end within the time; one that nobody has reaped is dead."""
    deadline = time.monotonic() + patience_s
    while any(map(_lives, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
