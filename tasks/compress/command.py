"""The command `python -m flows compress-text --rate=0.5 < prompt.txt`: a prompt in, a shorter one out."""

import sys
from collections.abc import Sequence

import regex

from tasks.compress.weights import compressor_folder
from tasks.core.command_line import read_config
from tasks.core.compression.compressor import Compressed, Compressor, Document
from tasks.core.compression.config import CompressionConfig
from tasks.core.compression.marked import read_marked
from tasks.core.compression.token_classifier import load_token_classifier
from tasks.core.credentials import Credential, take_credentials
from tasks.core.errors import UserError
from tasks.core.models import Precision

_PARAGRAPHS = regex.compile(r"\n[^\S\n]*\n\s*")


class CompressTextConfig(CompressionConfig):
    """Compress the text on standard input and print what is left; the rate that was reached goes to standard error."""

    model: str = ""
    """Folder of a compressor, or a hub id such as `microsoft/llmlingua-2-xlm-roberta-large-meetingbank`; empty takes
    the one that was trained last in the store."""
    store: str = ""
    """The store to look in; empty takes LOOPWRIGHT_STORE, or `.loopwright/store`."""
    credentials: tuple[Credential, ...] = ()
    """Prefect's blocks with the store's keys, as in the flows."""
    marked: bool = False
    """Parts between <keep> and </keep> stay as they are; the tags go, and the parts do not count."""
    contexts: bool = False
    """Every paragraph is a context, to be kept at all or not (`context_rate`, `target_contexts`)."""
    precision: Precision = "auto"
    """Number format of the weights; auto is bfloat16 on GPUs that have it, else float32."""


def run_compress_text(arguments: Sequence[str]) -> int:
    """Compress standard input to standard output; returns the exit code. Raises UserError for a mistake."""
    from transformers.utils import logging

    config = read_config(CompressTextConfig, "python -m flows compress-text", arguments)
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the text is not UTF-8: {error}", mend="convert it, for example with iconv"
        ) from error
    if config.contexts and config.marked:
        raise UserError(
            "paragraphs and marked parts at once", field="contexts", mend="choose one of contexts and marked"
        )
    take_credentials(config.credentials)
    documents = [read_marked(text) if config.marked else Document(text)]
    if not text.strip():
        sys.stdout.write(documents[0].text)
        return 0
    logging.disable_progress_bar()
    classifier = load_token_classifier(
        compressor_folder(config.model, config.store), precision=config.precision
    )
    compressor = Compressor(classifier)
    if config.contexts:
        documents = [Document(part) for part in _PARAGRAPHS.split(text) if part.strip()]
        done = list(compressor.compress_contexts(documents, config).values())
        result, tokens = "\n\n".join(one.text for one in done), compressor.count(documents)
    else:
        done = compressor.compress(documents, config)
        result, tokens = done[0].text, done[0].tokens
    ended = text.endswith("\n") and not result.endswith("\n")
    sys.stdout.write(result + "\n" * ended)
    print(_report(done, tokens), file=sys.stderr)
    return 0


def _report(done: Sequence[Compressed], tokens: int) -> str:
    kept, words = sum(one.kept_tokens for one in done), sum(int(one.kept.sum()) for one in done)
    rate = kept / tokens if tokens else 1.0
    return f"{kept:,} of {tokens:,} tokens kept ({rate:.1%}), {words:,} words"
