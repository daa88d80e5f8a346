"""The compressor against the package `llmlingua` 0.2.2: same weights, same dialogues, same rate, one run.

    python -m tests.benchmarks.compress [--texts N]

all-MiniLM-L6-v2 with a head of two labels drawn from seed 0 (how fast, and by which rule, words are kept does not
depend on what the head has learned), float32, one thread, half of the tokens kept; 300 dialogues of HH
(`hh/pairs.jsonl` of the shared data), as a stream of single ones and as a set, and 6 texts of 12 dialogues each,
which fill their chunks, so that nothing is saved on padding. Three processes take turns, part by part: the package,
ours, and the bare encoder, which runs its forward passes over the same tokens and nothing else. The package is
installed into build/bench/compress/peer, for its own process alone, with a stand-in for tiktoken that ours counts by
as well. About 6 minutes on a quiet core.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.compress_sides.common import DATA, FOLDER, MODEL, MODES, ROOT, texts
from tests.benchmarks.compress_sides.kept import compare

PEER = "llmlingua==0.2.2"
SIDES = ("peer", "ours", "bare")
PARTS = 3
TARGET, BARE_TARGET, MEMORY_TARGET = 3.0, 1.15, 1.0


class Side:
    """A process that works when it is told to."""

    def __init__(self, name: str) -> None:
        paths = [str(FOLDER / "peer")] * (name == "peer") + [os.environ.get("PYTHONPATH", "")]
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.compress_sides.{name}"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(FOLDER / f"{name}.log").open("w"),
            text=True,
        )
        self.loaded = self._read()

    def __call__(self, work: list[str], mode: str) -> dict[str, Any]:
        """Let it work on some texts; what that took and gave."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"texts": work, "mode": mode}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(
                f"{self._name} has ended with code {self._process.wait()}: see {FOLDER / self._name}.log"
            )
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def side(name: str) -> Iterator[Side]:
    """A side, ended at the end."""
    started = Side(name)
    try:
        yield started
    finally:
        started.close()


def prepare() -> None:
    """Install the package and write the weights, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "peer").is_dir():
        torn = FOLDER / "peer.torn"
        shutil.rmtree(torn, ignore_errors=True)
        install = ["install", "--quiet", "--no-deps", "--target", str(torn), PEER]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        stand_in = Path(__file__).parent / "compress_sides" / "tiktoken_stand_in.py"
        shutil.copy(stand_in, torn / "tiktoken.py")
        torn.rename(FOLDER / "peer")
    if not MODEL.is_dir():
        import torch
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        from tasks.base_model import local_path

        source = local_path("all-minilm-l6-v2", "model")
        torn = FOLDER / "model.torn"
        torch.manual_seed(0)
        model = AutoModelForTokenClassification.from_pretrained(source, num_labels=2)
        model.classifier.weight.data.normal_(0, 0.5)  # the usual 0.02 would make all words about as likely
        model.save_pretrained(torn)
        AutoTokenizer.from_pretrained(source).save_pretrained(torn)
        torn.rename(MODEL)


def main() -> None:
    """Measure, compare what was kept, print tables and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=300, help="dialogues")
    count = parser.parse_args().texts
    if not DATA.is_file():
        sys.exit(f"there is no {DATA}: set LOOPWRIGHT_SHARED_DATA to the folder of the shared data")
    prepare()
    seconds = {mode: dict.fromkeys(SIDES, 0.0) for mode in MODES}
    labels: list[list[str]] = []
    print(f"{'':8}{'part':>6}" + "".join(f"{name + ' s':>10}" for name in SIDES), flush=True)
    with ExitStack() as opened:
        sides = {name: opened.enter_context(side(name)) for name in SIDES}
        for one in sides.values():
            one(["Warm up."], "stream")
        told: dict[str, dict[str, Any]] = {}
        peaks: dict[str, float] = {}
        tokens = dict.fromkeys(MODES, 0)
        for mode in MODES:
            every = texts(mode, count)
            for part in range(PARTS):
                work = every[part::PARTS]
                told = {name: one(work, mode) for name, one in sides.items()}
                for name, what in told.items():
                    seconds[mode][name] += what["seconds"]
                    peaks[name] = what["peak_gb"]
                tokens[mode] += told["bare"]["tokens"]
                if mode == "stream":
                    labels += told["peer"]["labels"]
                row = "".join(f"{what['seconds']:>10.2f}" for what in told.values())
                print(f"{mode:8}{part + 1:>6}{row}", flush=True)
        every = texts("stream", count)
        described = sides["ours"]([text for part in range(PARTS) for text in every[part::PARTS]], "describe")
        imported = {name: one.loaded["loaded_gb"] for name, one in sides.items()}
    kept = compare(described["words"], labels)

    print(
        f"\n{'':8}{'tokens':>9}"
        + "".join(f"{name + ' s':>10}" for name in SIDES)
        + f"{'ratio':>8}{'/ bare':>8}"
    )
    figures: dict[str, Any] = {"name": "compress"}
    for mode, row in seconds.items():
        ratio, over = row["peer"] / row["ours"], row["ours"] / row["bare"]
        cells = "".join(f"{row[name]:>10.1f}" for name in SIDES)
        print(f"{mode:8}{tokens[mode]:>9,}{cells}{ratio:>8.2f}{over:>8.3f}")
        figures |= {f"{mode}_ratio": ratio, f"{mode}_over_bare": over, f"{mode}_tokens": tokens[mode]}
        figures |= {f"{mode}_{name}_s": row[name] for name in SIDES}
    print(f"peak GB  {peaks['peer']:>18.2f}{peaks['ours']:>10.2f}{peaks['bare']:>10.2f}")
    words = sum(kept.values())
    for cause, number in kept.most_common():
        print(f"words {cause:10}{number:>9,}{number / words:>9.2%}")
    figures |= {
        "ratio": min(figures["stream_ratio"], figures["set_ratio"]),
        "target": TARGET,
        "over_bare": max(figures["stream_over_bare"], figures["set_over_bare"]),
        "over_bare_target": BARE_TARGET,
        "memory_ratio": peaks["ours"] / peaks["peer"],
        "memory_target": MEMORY_TARGET,
        "words": words,
    }
    figures |= {f"{name}_peak_gb": peak for name, peak in peaks.items()}
    figures |= {f"{name}_loaded_gb": loaded for name, loaded in imported.items()}
    figures |= {f"words_{cause}": number for cause, number in kept.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
