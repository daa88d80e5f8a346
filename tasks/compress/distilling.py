"""Stage: a teacher shortens chunks of text by taking words away, and what it answers is checked (one shard)."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tasks.augment.teacher import Teacher
from tasks.compress.annotating import Alignment, align
from tasks.core.compression.words import split_words
from tasks.core.config import Config
from tasks.core.examples import read_records, write_rows
from tasks.core.generators.base import Completion, Message, Sampling, Usage
from tasks.core.generators.load import load_generator
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage

INSTRUCTION = """Shorten the text by deleting words that carry little meaning. What is left has to let a reader \
recover the whole content.
1. Only delete words.
2. Leave the words that remain in their order.
3. Leave them as they are spelled: no other form, no synonym.
4. No abbreviations and no emoji.
5. Add no word and no sign.
Delete as much as you can without losing a fact. Answer with the shortened text and nothing else."""
"""The five constraints of LLMLingua-2's instruction (arXiv 2403.12968, figure 9) in our own words."""

_WORKED = (
    (
        "So, um, the meeting of the library board has been moved from Monday to Thursday, the 14th of May, because the "
        "large room is being painted.",
        "meeting library board moved Monday to Thursday 14th May large room painted.",
    ),
    (
        "I just wanted to let you know that Ms Okafor will pick up the three boxes at the back door at about nine.",
        "Ms Okafor pick up three boxes back door nine.",
    ),
)
_PREAMBLE = re.compile(
    r"^\s*(?:here is )?(?:the )?(?:compressed|shortened|shorter)(?: text| version)?\s*:\s*", re.I
)
_MOST_ABSENT = 0.5


class DistillationConfig(Config):
    """How the teacher is asked for shorter texts."""

    worked: bool = True
    """Show two finished exchanges first. Small teachers need them; a large one obeys without (published)."""
    temperature: float = Field(0.0, ge=0.0, le=5.0)
    """Sampling temperature of the teacher."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling of the teacher."""
    max_new_tokens: int = Field(512, ge=1, le=32768)
    """Longest answer of the teacher, in tokens; a longer one is not used."""
    window: int = Field(150, ge=1, le=10_000)
    """How far from where it is expected a kept word is looked for, in words."""
    prompt_price: float = Field(0.0, ge=0.0)
    """Price of a million prompt tokens, to count the costs;"""
    completion_price: float = Field(0.0, ge=0.0)
    """that of a million tokens of the answers, in the same currency."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the sampling."""


class DistillationInputs(BaseModel):
    """Who is asked, and for what."""

    teacher: Teacher
    chunks: DatasetRef


class DistillationResult(BaseModel):
    """What came back, labelled."""

    pairs: DatasetRef
    """Chunk rows with the teacher's text (`compressed`), a label per word (`labels`: 1 kept, 0 not), `variation`, `gap`
    and `reordered`."""
    unusable: DatasetRef
    """Chunk rows with the teacher's answer and the `reason` why it is not used."""
    reasons: dict[str, int]
    usage: Usage
    cost: float


def request(text: str, config: DistillationConfig) -> list[Message]:
    """The conversation that asks for a shorter text."""
    messages: list[Message] = [{"role": "system", "content": INSTRUCTION}]
    for long, short in _WORKED if config.worked else ():
        messages += [{"role": "user", "content": long}, {"role": "assistant", "content": short}]
    return [*messages, {"role": "user", "content": text}]


def read_answer(text: str) -> str:
    """The shortened text in an answer, without a heading, a code fence or quotation marks around it."""
    text = _PREAMBLE.sub("", text.strip()).strip()
    if text.startswith("```") and text.endswith("```") and len(text) >= 6:
        text = text[3:-3].strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "“”", "''"):
        text = text[1:-1].strip()
    return text


def unusable(completion: Completion, words: int, found: Alignment) -> str:
    """Why an answer cannot be learned from; empty when it can.

    An answer of which most words are not in the text was rewritten, is a refusal, or is in another language.
    """
    if completion.finish == "error":
        return "unanswered"
    if completion.finish == "length":
        return "cut off"
    if not found.compressed:
        return "empty"
    if found.compressed > words:
        return "longer"
    if found.variation > _MOST_ABSENT:
        return "rewritten"
    return "nothing removed" if all(found.kept) else ""


def run(
    config: DistillationConfig, inputs: DistillationInputs, out: Path, report: Report
) -> DistillationResult:
    """Ask for every chunk, check and label what comes back."""
    rows = list(read_records(inputs.chunks))
    generator = load_generator(inputs.teacher.engine, inputs.teacher.weights, field="teacher.engine")
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    completions = generator.generate(
        [request(row["text"], config) for row in rows],
        sampling,
        lambda done, total: report({"progress": [done, total], "text": "chunks compressed"}),
        streams=[int(row["id"], 16) % 2**62 for row in rows],
    )
    pairs, rejected = list[dict[str, Any]](), list[dict[str, Any]]()
    for row, completion in zip(rows, completions, strict=True):
        answer = read_answer(completion.text)
        words = split_words(row["text"]).texts
        found = align(words, split_words(answer).texts, config.window)
        reason = unusable(completion, len(words), found)
        if reason:
            told = completion.model_dump(mode="json")
            rejected.append(row | {"reason": reason, "answer": told["text"], "error": told["error"]})
            continue
        pairs.append(
            row
            | {"compressed": answer, "labels": "".join("01"[kept] for kept in found.kept)}
            | {
                "variation": found.variation,
                "gap": found.gap,
                "reordered": found.reordered / found.compressed,
            }
        )
    usage = generator.usage
    return DistillationResult(
        pairs=write_rows(out / "pairs.jsonl", pairs),
        unusable=write_rows(out / "unusable.jsonl", rejected),
        reasons=dict(Counter(row["reason"] for row in rejected)),
        usage=usage,
        cost=(usage.prompt_tokens * config.prompt_price + usage.completion_tokens * config.completion_price)
        / 1e6,
    )


STAGE = Stage("distil", run, DistillationConfig, DistillationInputs, DistillationResult, own_process=True)
