"""How much of a prompt is kept, and what of it in any case."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config

Text = Annotated[str, Field(min_length=1)]


class ChunkConfig(Config):
    """What the encoder sees at once."""

    max_length: int = Field(512, ge=8, le=8192)
    """Longest chunk in the encoder's tokens, its two special ones included; no more than the encoder can read."""
    chunk_ends: tuple[Text, ...] = (".", "!", "?", "。", "！", "？", "\n")
    """Words after which a chunk may end, or `\\n`; where none of them stands in it, a full chunk ends at any word."""
    batch_tokens: int = Field(4096, ge=1, le=1 << 24, json_schema_extra=PLACEMENT)
    """Tokens the encoder reads at once, padding included. Raise it on a GPU, lower it when memory runs out."""


class CompressionConfig(ChunkConfig):
    """How much is kept, and what in any case."""

    rate: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the tokens that is kept: 0.5 makes a prompt half as long, 1 leaves it as it is."""
    target_token: int = Field(0, ge=0)
    """Tokens that are kept of every prompt, whatever its length; 0 leaves it to `rate`."""
    force_tokens: tuple[Text, ...] = ()
    """Words, phrases, marks or `\\n` that are kept wherever they stand."""
    reserve_digits: bool = False
    """Keep every word with a digit in it."""
    drop_consecutive: bool = False
    """Of the same forced word several times in a row, with nothing kept between, keep one."""
    context_rate: float = Field(1.0, gt=0.0, le=1.0)
    """Of several contexts, the share that is kept at all: those whose words are the likeliest to be kept."""
    target_contexts: int = Field(0, ge=0)
    """How many contexts are kept at all; 0 leaves it to `context_rate`."""


class CompressorConfig(CompressionConfig):
    """A compressor that makes prompts shorter before a model gets them."""

    model: str = Field("", json_schema_extra=PLACEMENT)
    """Folder (`s3://…` too) of a compressor, as `compress` leaves one, or a hub id; empty sends prompts as they are."""
    digest: str = ""
    """SHA-256 of its files; filled in."""
    roles: tuple[Literal["system", "user", "assistant"], ...] = ("user", "assistant")
    """Whose messages are compressed. The system's say what is to be done."""
    last: bool = False
    """Also the last message, which is the question itself."""
    shortest: int = Field(30, ge=1)
    """Messages of fewer words stay as they are."""
