"""Stage: read the texts a compressor is to learn from, and cut them into chunks at sentence ends."""

import hashlib
import random
import re
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.compression.chunks import cut, sentence_ends, tokens_of_words
from tasks.core.compression.config import ChunkConfig
from tasks.core.compression.token_classifier import fast_tokenizer, longest_input, tokenise
from tasks.core.compression.words import split_words
from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.examples import read_records, write_rows
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.core.store import fetch
from tasks.data.formats import parse
from tasks.data.sources import read_files

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


class TextsConfig(Config):
    """The texts that a compressor learns from."""

    train: str = Field("", json_schema_extra=PLACEMENT)
    """Address of the texts: a file (.jsonl, .json, .csv, .tsv, .parquet, each also .gz), a folder of such, or `s3://…`."""
    column: str = Field("text", min_length=1)
    """Column of the text."""
    rows: int = Field(0, ge=0)
    """Take at most so many texts, drawn by `seed`; 0 takes all."""
    test_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the texts that the compressor is tested on and does not learn from; never parts of one text on both
    sides."""
    chunk_tokens: int = Field(512, ge=16, le=8192)
    """Longest chunk that the teacher gets, in the encoder's tokens; it ends at a sentence end where there is one."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides which texts are taken and which are held out."""


class TextsInputs(BaseModel):
    """The texts as they were found, and the encoder whose tokens are counted."""

    content: str
    encoder: ModelRef


class Chunks(BaseModel):
    """The chunks of all texts."""

    chunks: DatasetRef
    """Rows of id, text, text_id and held_out."""
    texts: int
    words: int
    shards: list[DatasetRef]
    """The same rows, in parts that are compressed one after another."""


def read_texts(config: TextsConfig) -> list[str]:
    """The texts in their order, equal ones once. Raises UserError for a source or column that is not there, and when
    fewer than two texts have words."""
    if not config.train:
        raise UserError(
            "no texts are named",
            field="texts.train",
            mend="give a file, for example --texts.train=texts.jsonl",
        )
    rows = [
        row
        for name, data in read_files(config.train, "texts.train")
        for row in parse(name, data, "texts.train")
    ]
    columns = dict.fromkeys(column for _, cells in rows for column in cells)
    if config.column not in columns:
        raise UserError(
            f"{config.train} has no column {config.column!r}",
            field="texts.column",
            mend=f"its columns are {', '.join(columns)}; choose one with --texts.column=NAME",
        )
    for place, cells in rows:
        text = cells.get(config.column)
        if not isinstance(text, str) or _HALF_A_CHARACTER.search(text):
            raise UserError(
                f"{place}, column {config.column!r} is no text",
                field="texts.train",
                mend="fill or remove this row",
            )
    found = dict.fromkeys(cells[config.column] for _, cells in rows if cells[config.column].strip())
    if len(found) < 2:
        raise UserError(
            f"{config.train} has {len(found)} text{'' if len(found) == 1 else 's'} with words in it",
            field="texts.train",
            mend="give at least two: one to learn from and one to test on",
        )
    return list(found)


def inputs(config: TextsConfig, encoder: ModelRef) -> TextsInputs:
    """What the stage's cache key depends on. Raises UserError as reading does."""
    digest = hashlib.sha256("\0".join(sorted(read_texts(config))).encode())
    return TextsInputs(content=digest.hexdigest(), encoder=encoder)


SHARD = 32
"""Chunks that a teacher compresses in one go: a killed run loses no more than these."""


def run(config: TextsConfig, inputs: TextsInputs, out: Path, report: Report) -> Chunks:
    """Write chunks.jsonl and its shards; the same texts give the same files, in whatever order they come."""
    from transformers import AutoConfig, AutoTokenizer

    folder = fetch(inputs.encoder)
    tokenizer = fast_tokenizer(AutoTokenizer.from_pretrained(folder), "encoder.model")
    room = min(config.chunk_tokens, longest_input(AutoConfig.from_pretrained(folder))) - 2
    texts = sorted(read_texts(config))
    random.Random(config.seed).shuffle(texts)
    texts = texts[: config.rows or len(texts)]
    held_out = max(1, round(config.test_fraction * len(texts)))
    rows, words_in_all, seen = list[dict[str, object]](), 0, set[str]()
    for number, (text, (_, offsets)) in enumerate(zip(texts, tokenise(tokenizer, texts), strict=True)):
        words = split_words(text)
        words_in_all += len(words)
        ends = sentence_ends(words, frozenset(ChunkConfig().chunk_ends))
        for chunk in cut(*tokens_of_words(words, offsets), ends, room):
            if chunk.end - chunk.begin > room:
                continue  # a single word that no encoder reads: nothing can be removed from it
            part = text[words.starts[chunk.first] : words.ends[chunk.last - 1]]
            row_id = hashlib.sha256(part.encode()).hexdigest()[:16]
            if row_id in seen:
                continue  # the same words in another text, which may be on the other side
            seen.add(row_id)
            rows.append({"id": row_id, "text": part, "text_id": number, "held_out": number < held_out})
    if len({row["held_out"] for row in rows}) < 2:
        raise UserError(
            "no text is left to learn from, or none to test on",
            field="texts.rows",
            mend="give more texts, or another test_fraction",
        )
    shards = [
        write_rows(out / "shards" / f"{begin // SHARD:05}.jsonl", rows[begin : begin + SHARD])
        for begin in range(0, len(rows), SHARD)
    ]
    chunks = write_rows(out / "chunks.jsonl", rows)
    return Chunks(chunks=chunks, texts=len(texts), words=words_in_all, shards=shards)


def read_chunks(ref: DatasetRef) -> list[dict[str, object]]:
    """The rows of chunks.jsonl or of a shard."""
    return list(read_records(ref))


STAGE = Stage("compressor_texts", run, TextsConfig, TextsInputs, Chunks, own_process=True)
