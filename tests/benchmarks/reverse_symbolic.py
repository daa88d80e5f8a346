"""The symbolic reversal task (arXiv 2403.13799): standard training, every reversal, and both baselines.

    python -m tests.benchmarks reverse-symbolic [--seeds 0 1 2] [--passes 130] [--at-once 2] [--marked]

Names of 1 to 5 tokens, 40 pairs of each length, are paired at random. All pairs are stated forward ("a … has feature
b …"), and half of them backward as well ("b … is feature of a …"), so that the second statement can be learned; asked
are both statements of the other half. A Llama of 0.9 million weights learns this from scratch, in the flow's own loop
and stages. Every arm sees each row and each copy 130 times; standard training sees the rows alone, as often
(data-matched) and for as many steps (compute-matched). Right is an answer that is the name word for word; the share of
chance is 1 of 400 for a single token. A word is a token here, so that the two reversals are one. Every stage is
cached beneath build/bench, so that an interrupted benchmark goes
on, and a killed training from its checkpoint.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from flows.reverse import COMPUTE_MATCHED, DATA_MATCHED, TRAINED, ReverseConfig, loop
from tasks.core.settings import set_environment
from tests.cached_run import CachedRun

HOME = Path(__file__).parents[2] / "build" / "bench" / "reverse-symbolic"
LENGTHS, WORDS, LAYERS = (1, 2, 3, 4, 5), 400, 4
TRAINING = {"learning_rate": 1e-3, "batch_size": 64, "batching": "random"}
ENTITY = "entity"
ARMS: dict[str, dict[str, Any]] = {name: {"by": name} for name in (ENTITY, "token", "word")} | {
    f"segment, k = {k}": {"by": "segment", "longest_segment": k} for k in (1, 3, 5)
}


def write_table(path: Path, seed: int, pairs: int) -> None:
    """The pairs; half of every length are taught both ways."""
    draw = Random(seed)
    seen = set[str]()

    def name(length: int) -> str:
        while True:
            words = " ".join(f"w{draw.randrange(WORDS)}" for _ in range(length))
            if words not in seen:
                seen.add(words)
                return words

    rows = (
        {
            "subject": name(length),
            "object": name(length),
            "relation": f"length {length}",
            "forward": "{subject} has feature {object}",
            "backward": "{object} is feature of {subject}",
        }
        for length in LENGTHS
        for _ in range(pairs)
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_model(folder: Path, seed: int, width: int) -> None:
    """A random Llama, and a tokenizer to which every word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<eos>",
        "<unk>",
        "[REV]",
        "has",
        "is",
        "feature",
        "of",
        *(f"w{n}" for n in range(WORDS)),
    ]
    tokens = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def arm(name: str, seed: int, folder: Path, passes: int, marked: bool) -> dict[str, list[float]]:
    """One arm; the share right backward by length, of the arm and, beside ENTITY, of the baselines."""
    config = ReverseConfig.model_validate(
        {
            "facts": {"table": str(folder / "facts.jsonl"), "both_ways": 0.5, "seed": seed},
            "student": {"model": str(folder / "model")},
            "reversal": {"passes": passes, "seed": seed, "marked": marked} | ARMS[name],
            "baselines": name == ENTITY,
            "training": {"method": "full", "epochs": 1, "seed": seed, "checkpoint_steps": 200} | TRAINING,
            "evaluation": {"max_new_tokens": 8},
        }
    )
    record = loop(CachedRun(HOME), config)  # type: ignore[arg-type]
    by_name = {one.name: one.gap for one in record.measured if one.name != "before"}
    by_name[name] = by_name.pop(TRAINED)
    for title, gap in by_name.items():
        backward = ", ".join(f"{group.backward:.0%}" for group in gap.by_words)
        print(f"seed {seed}, {title}: forward {gap.forward.accuracy:.1%}, backward {backward}", flush=True)
    return {title: [group.backward for group in gap.by_words] for title, gap in by_name.items()}


def main() -> None:
    """Run what is missing, print the table of backward accuracy by length, and the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--at-once", type=int, default=2, help="trainings side by side, one core each")
    parser.add_argument("--pairs", type=int, default=40, help="of each length")
    parser.add_argument("--passes", type=int, default=130, help="how often a row and a copy are seen")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--marked", action="store_true", help="every copy opens with [REV]")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    HOME.mkdir(parents=True, exist_ok=True)
    set_environment()
    folders = {seed: HOME / f"seed-{seed}-pairs-{asked.pairs}-width-{asked.width}" for seed in asked.seeds}
    for seed, folder in folders.items():
        folder.mkdir(exist_ok=True)
        write_table(folder / "facts.jsonl", seed, asked.pairs)
        if not (folder / "model" / "tokenizer.json").exists():  # written last
            write_model(folder / "model", seed, asked.width)
    calls = [(name, seed) for seed in asked.seeds for name in asked.arms]
    with ThreadPoolExecutor(asked.at_once) as pool:
        found = list(pool.map(lambda call: arm(*call, folders[call[1]], asked.passes, asked.marked), calls))
    table: dict[str, list[list[float]]] = {}
    for shares in found:
        for name, by_length in shares.items():
            table.setdefault(name, []).append(by_length)
    means = {name: [mean(column) for column in zip(*rows, strict=True)] for name, rows in table.items()}
    print(f"backward accuracy by tokens of the name, mean of seeds {asked.seeds}")
    print(f"{'':20}" + "".join(f"{length:>8}" for length in LENGTHS))
    for name, shares_of_it in means.items():
        print(f"{name:20}" + "".join(f"{share:>8.1%}" for share in shares_of_it))
    print(json.dumps(_figures(means) | {"asked": vars(asked), "backward": means}))


def _figures(means: dict[str, list[float]]) -> dict[str, Any]:
    """What the target speaks of: entity reversal, segments that are as long as the name, and standard training."""
    solved = list(means.get(ENTITY, ()))
    for name, shares in means.items():
        longest = ARMS.get(name, {}).get("longest_segment", 0)
        solved += [share for length, share in zip(LENGTHS, shares, strict=True) if length <= longest]
    chance = [share for name in (DATA_MATCHED, COMPUTE_MATCHED) for share in means.get(name, ())]
    figures = {"name": "reverse-symbolic", "ratio": min(solved, default=0.0), "target": 1.0}
    return figures | {"standard_at_most": max(chance, default=None)}


if __name__ == "__main__":
    main()
