"""The compressor: which words stay, at exactly which rate, and what text they make."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.compression.chunks import Chunk, cut, sentence_ends, tokens_of_words
from tasks.core.compression.compressor import Compressor, Document
from tasks.core.compression.config import CompressionConfig
from tasks.core.compression.keeping import keep
from tasks.core.compression.marked import read_marked
from tasks.core.compression.surface import surface
from tasks.core.compression.token_classifier import batches, load_token_classifier
from tasks.core.compression.words import split_words
from tasks.core.errors import UserError
from tests.tiny_encoder import TEXTS, build_tiny_encoder

LONG = " ".join(TEXTS * 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A BERT and an XLM-R of 64 tokens."""
    place = tmp_path_factory.mktemp("encoders")
    return {kind: build_tiny_encoder(place / kind, kind) for kind in ("bert", "xlm-roberta")}


@pytest.fixture(scope="module")
def classifier(folders):
    return load_token_classifier(folders["bert"])


@pytest.fixture(scope="module")
def compressor(classifier):
    return Compressor(classifier)


def compress(compressor, text, untouched=(), **fields):
    (found,) = compressor.compress([Document(text, untouched)], CompressionConfig(**fields))
    return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't pay $3.50, OK?", ["Don", "'", "t", "pay", "$", "3", ".", "50", ",", "OK", "?"]),
        ("a_b = {c}", ["a", "_", "b", "=", "{", "c", "}"]),
        ("你好 world", ["你", "好", "world"]),
        ("hi😀👍🏽 café", ["hi😀👍🏽", "café"]),
        (" \n\t", []),
        ("| a | b |\n|---|", ["|", "a", "|", "b", "|", "|", "-", "-", "-", "|"]),
    ],
)
def test_words_are_what_stands_between_spaces_and_marks(text, words):
    assert split_words(text).texts == words


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=60))
def test_words_hold_every_character_but_white_space_in_order(text):
    assert "".join(split_words(text).texts) == re.sub(r"\s", "", text)


def test_the_likeliest_words_are_kept_and_what_a_chunk_leaves_goes_to_the_next():
    words = split_words("a b c d e f")
    likely = np.array([0.9, 0.8, 0.1, 0.2, 0.7, 0.6])
    weight = np.array([2, 2, 2, 1, 2, 1])
    chunks = [Chunk(0, 3, 0, 6), Chunk(3, 6, 6, 10)]
    none = np.zeros(6, dtype=bool)
    # Half of 6 is 3: a, and 1 is left over. Half of 4 is 2, and that 1: e and f.
    assert keep(words, chunks, likely, weight, none, 0.5).tolist() == [True, False, False, False, True, True]
    # What is forced counts: c takes 2 of 3, then a does not fit and nothing less likely takes its place.
    forced = np.array([False, False, True, False, False, False])
    assert keep(words, chunks, likely, weight, forced, 0.5).tolist() == [
        False,
        False,
        True,
        False,
        True,
        True,
    ]
    equal = np.full(6, 0.5)
    assert keep(words, chunks[:1], equal, weight, none, 0.67).tolist()[:3] == [True, True, False]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([*split_words(LONG).texts, "\n", "库", "zebra"]), min_size=1, max_size=150),
    st.floats(0, 1),
)
def test_the_rate_is_met_to_within_a_word_and_words_keep_their_order(compressor, pieces, rate):
    text = " ".join(pieces)
    found = compress(compressor, text, rate=rate)
    most = max((compress(compressor, word, rate=1.0).tokens for word in set(pieces)), default=0)
    assert rate * found.tokens - most <= found.kept_tokens <= rate * found.tokens + 1e-6
    kept = [word for word, stays in zip(found.words.texts, found.kept, strict=True) if stays]
    assert split_words(found.text).texts == kept


@pytest.mark.parametrize(
    "text", ["", " \n ", "one", "12 34 5,678", "你好，世界。", "😀 👍🏽", "\x00\u200b", "x" * 3000]
)
def test_texts_of_every_kind_survive_every_rate(compressor, text):
    assert compress(compressor, text, rate=1.0).text == text
    assert compress(compressor, text, rate=0.0).text == ""
    assert compress(compressor, text, target_token=10**9).text == text
    assert compress(compressor, text, rate=0.5).rate <= 1


def test_code_and_tables_that_are_kept_whole_stay_as_they_are(compressor):
    for text in (TEXTS[2], "| a | b |\n|---|---|\n| 1 | 2 |\n", "  indented\n\n\n  twice\n"):
        assert compress(compressor, text, rate=1.0).text == text


def test_a_target_counts_for_every_prompt_by_itself(compressor):
    found = compressor.compress([Document(LONG), Document(TEXTS[0])], CompressionConfig(target_token=10))
    assert all(8 <= one.kept_tokens <= 10 for one in found)


def test_forced_words_stay_whatever_the_vocabulary_and_digits_if_asked(compressor):
    text = "Nothing is not here.\nAsk for Zürich 1234 or zebra crossings\n\nnow"
    found = compress(
        compressor, text, rate=0.0, force_tokens=("not", "zebra crossings", "\n"), reserve_digits=True
    )
    assert found.text == "not\n1234 zebra crossings\n\nnow".replace("\n\nnow", "")
    assert compress(compressor, text, rate=0.0, force_tokens=("noth", "crossing")).text == ""


def test_consecutive_forced_words_are_kept_once(compressor):
    text = "? one ? two ?\n\nthree ?"
    fields = {"rate": 0.0, "force_tokens": ("?", "\n")}
    assert compress(compressor, text, **fields).text == "? ? ?\n\n?"
    assert compress(compressor, text, **fields, drop_consecutive=True).text == "?"
    with_three = {**fields, "force_tokens": ("?", "\n", "three"), "drop_consecutive": True}
    assert compress(compressor, text, **with_three).text == "?\nthree ?"


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("a b, c", "101 1", "a, c"),
        ("f(x, y)", "11 0 0 1 1", "f(y)"),
        ("state-of-the-art", "1000001", "state art"),
        ("你好世界", "1001", "你界"),
        ("one two\nthree", "101", "one three"),
        ("  one two ", "01", "two "),
    ],
)
def test_what_stands_between_kept_words(text, kept, left):
    mask = np.array([flag == "1" for flag in kept.replace(" ", "")])
    words = split_words(text)
    assert len(words) == len(mask)
    assert surface(words, mask) == left


def test_untouched_parts_stay_letter_by_letter_and_do_not_count(compressor):
    document = read_marked(f"{LONG} <keep>Q:  what\n is it?</keep> {LONG}")
    found = compress(compressor, document.text, document.untouched, rate=0.2)
    assert "Q:  what\n is it?" in found.text
    (part,) = np.flatnonzero(found.words.untouched)
    rest = found.kept_tokens - _weight(compressor, document)[part]
    counted = found.tokens - _weight(compressor, document)[part]
    assert 0.2 * counted - 6 <= rest <= 0.2 * counted
    assert compress(compressor, "x", ((0, 1),), rate=0.0).text == "x"


def _weight(compressor, document):
    return compressor.score([document], CompressionConfig())[0].weight


@pytest.mark.parametrize("text", ["<keep>a", "a</keep>", "<keep>a<keep>b</keep></keep>"])
def test_marks_that_do_not_pair_are_refused(text):
    with pytest.raises(UserError, match=r"</?keep>"):
        read_marked(text)


def test_of_contexts_the_likeliest_are_kept_in_their_order(compressor):
    contexts = [Document(text) for text in (*TEXTS, LONG)]
    means = [one.mean for one in compressor.score(contexts, CompressionConfig())]
    best = sorted(sorted(range(4), key=lambda i: -means[i])[:2])
    found = compressor.compress_contexts(contexts, CompressionConfig(rate=0.5, context_rate=0.5))
    assert list(found) == best
    assert list(compressor.compress_contexts(contexts, CompressionConfig(target_contexts=2))) == best
    limited = compressor.compress_contexts(contexts, CompressionConfig(target_contexts=2, target_token=20))
    assert 14 <= sum(one.kept_tokens for one in limited.values()) <= 20
    assert compressor.compress_contexts([], CompressionConfig()) == {}


def test_chunks_end_at_sentences_fit_and_leave_nothing_out(classifier):
    words = split_words(LONG)
    ((_, offsets),) = classifier.tokenise([LONG])
    first, last = tokens_of_words(words, offsets)
    chunks = cut(first, last, sentence_ends(words, {".", "!", "\n"}), 62)
    assert [chunk.first for chunk in chunks] == [0, *(chunk.last for chunk in chunks[:-1])]
    assert chunks[-1].last == len(words)
    assert all(chunk.end - chunk.begin <= 62 for chunk in chunks)
    ends = {words.texts[chunk.last - 1] for chunk in chunks}
    assert ends <= {".", "!", "numbers"}
    without = cut(first, last, np.zeros(len(words), dtype=bool), 62)
    assert all(chunk.end - chunk.begin > 50 for chunk in without[:-1])


def test_several_prompts_at_once_give_what_each_gives_alone(compressor):
    texts = [*TEXTS, LONG, "short", "", LONG[:100]]
    config = CompressionConfig(rate=0.4)
    together = [one.text for one in compressor.compress([Document(text) for text in texts], config)]
    assert together == [compress(compressor, text, rate=0.4).text for text in texts]


def test_batches_hold_every_row_once_and_little_padding():
    lengths = [100, 5, 98, 51, 50, 49, 100, 5]
    found = batches(lengths, 200)
    assert sorted(index for rows in found for index in rows) == list(range(8))
    assert all(len(rows) * max(lengths[i] for i in rows) <= 200 or len(rows) == 1 for rows in found)
    assert all(min(lengths[i] for i in rows) >= 0.9 * max(lengths[i] for i in rows) for rows in found)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_probabilities_are_the_models_own_with_its_special_tokens(folders, kind):
    """Against transformers: the tokenizer's special tokens, the model's softmax, a mean over a word's tokens."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    model = AutoModelForTokenClassification.from_pretrained(folders[kind]).eval()
    text = "Nothing was said about books; please ask Ms Okafor."
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits.softmax(-1)[0, :, 1].tolist()
    (scored,) = Compressor(load_token_classifier(folders[kind])).score([Document(text)], CompressionConfig())
    spans = zip(scored.words.starts, scored.words.ends, scored.probability, strict=True)
    for start, end, probability in spans:
        inside = [
            p
            for p, (a, b) in zip(expected[1:-1], encoded["offset_mapping"][1:-1], strict=True)
            if a < end and b > start
        ]
        assert probability == pytest.approx(sum(inside) / len(inside), abs=1e-6)


def test_special_tokens_that_a_text_spells_out_are_text(classifier):
    ((ids, _),) = classifier.tokenise(["[SEP] and [CLS]"])
    assert not set(ids.tolist()) & set(classifier.specials)


def test_a_text_of_200_000_words_without_a_sentence_end(compressor):
    text = "reading room new numbers " * 50_000
    found = compress(compressor, text, rate=0.25)
    assert len(found.words) == 200_000
    assert found.rate == pytest.approx(0.25, abs=1e-4)


def test_another_counter_decides_the_rate(classifier):
    counted = Compressor(classifier, lambda words: [len(word) for word in words])
    found = compress(counted, LONG, rate=0.5)
    assert found.tokens == len(re.sub(r"\s", "", LONG))
    assert found.kept_tokens == len(re.sub(r"\s", "", found.text))


def test_a_model_that_is_no_compressor_is_refused(tmp_path):
    folder = build_tiny_encoder(tmp_path / "encoder", head=False)
    with pytest.raises(UserError, match="BertModel and no compressor"):
        load_token_classifier(folder)
