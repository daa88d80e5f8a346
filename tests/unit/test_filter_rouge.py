"""The index answers what a loop over rouge-score answers, in every decision and to the last bit."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from tasks.filter.rouge import Match, RougeIndex, tokenise


class Tokeniser:
    """Gives rouge-score the tokens of the index, which sees more scripts."""

    def tokenize(self, text: str) -> list[str]:
        return tokenise(text)


SCORER = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=Tokeniser())
LATIN = "".join(map(chr, [*range(0x24F), *range(0x1E00, 0x1F00), 0x2019, 0x2026, 0x20AC, 0xB5, 0x1F600]))


def rouge(reference: str, candidate: str) -> float:
    return SCORER.score(reference, candidate)["rougeL"].fmeasure


def loop(texts: list[str], threshold: float) -> list[Match | None]:
    """What each text meets among the kept ones before it, pair by pair."""
    kept: list[tuple[str, str]] = []
    found: list[Match | None] = []
    for number, text in enumerate(texts):
        scores = ((id, rouge(other, text)) for id, other in kept)
        found.append(next((Match(id, score) for id, score in scores if score > threshold), None))
        if found[-1] is None:
            kept.append((str(number), text))
    return found


def index(texts: list[str], threshold: float, frequent: int = 1_000) -> list[Match | None]:
    """The same by the index."""
    seen = RougeIndex(threshold, frequent)
    found: list[Match | None] = []
    for number, text in enumerate(texts):
        found.append(seen.find(text))
        if found[-1] is None:
            seen.add(str(number), text)
    return found


WORDS = st.sampled_from(["play", "a", "song", "by", "x", "the", "99", "Add", "it's", "déjà", "再生", "!"])


@st.composite
def related_texts(draw: st.DrawFn) -> list[str]:
    """Up to 12 texts, most of them an earlier one with words put in, taken out, replaced or moved."""
    texts: list[list[str]] = []
    for _ in range(draw(st.integers(1, 12))):
        if texts and draw(st.integers(0, 4)):
            words = list(draw(st.sampled_from(texts)))
            for _ in range(draw(st.integers(0, 4))):
                at = draw(st.integers(0, len(words)))
                words[at : at + draw(st.integers(0, 2))] = draw(st.lists(WORDS, max_size=2))
        else:
            words = draw(st.lists(WORDS, max_size=45))
        texts.append(words)
    return [" ".join(words) for words in texts]


@settings(max_examples=400, deadline=None)
@given(
    related_texts(),
    st.sampled_from([0.05, 0.3, 0.5, 2 / 3, 0.7, 0.75, 0.8, 0.9, 10 / 11, 0.95, 20 / 21, 1.0]),
    st.sampled_from([0, 1, 3, 1_000]),
)
def test_every_decision_row_and_score_is_that_of_the_loop(
    texts: list[str], threshold: float, frequent: int
) -> None:
    assert index(texts, threshold, frequent) == loop(texts, threshold)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=6), st.sampled_from([0.3, 0.5, 0.95]))
def test_any_unicode_text_is_decided_as_by_the_loop(texts: list[str], threshold: float) -> None:
    assert index(texts, threshold) == loop(texts, threshold)


@settings(max_examples=500, deadline=None)
@given(st.text(LATIN))
def test_tokens_of_latin_letters_and_signs_are_those_of_rouge_score(text: str) -> None:
    assert tokenise(text) == tokenize(text, None)


@pytest.mark.parametrize("frequent", [0, 4, 1_000])
def test_texts_of_hundreds_of_words_are_decided_as_by_the_loop(frequent: int) -> None:
    draw = random.Random(7)
    vocabulary = [f"w{number}" for number in range(400)]
    texts: list[list[str]] = [draw.choices(vocabulary, k=length) for length in (250, 256, 300, 420)]
    for base in tuple(texts):
        for changes in (5, 11, 14, 30):
            words = list(base)
            for _ in range(changes):
                at = draw.randrange(len(words))
                words[at : at + draw.randrange(2)] = draw.choices(vocabulary, k=draw.randrange(2))
            texts.append(words)
        texts.append(draw.sample(base, len(base)))
    rows = [" ".join(words) for words in texts]
    for threshold in (0.8, 0.95):
        found = index(rows, threshold, frequent)
        assert found == loop(rows, threshold)
        assert 0 < sum(match is not None for match in found) < len(rows) - 4


@pytest.mark.parametrize(
    ("lcs", "candidate", "reference"), [(4, 5, 5), (10, 10, 11), (19, 20, 20), (7, 9, 8)]
)
def test_a_score_equal_to_the_threshold_is_not_above_it(lcs: int, candidate: int, reference: int) -> None:
    shared = [f"s{number}" for number in range(lcs)]
    text = " ".join(shared + [f"c{number}" for number in range(candidate - lcs)])
    other = " ".join(shared + [f"r{number}" for number in range(reference - lcs)])
    score = rouge(other, text)
    assert score == pytest.approx(2 * lcs / (candidate + reference))
    for threshold, expected in ((score, None), (math.nextafter(score, 0), Match("other", score))):
        seen = RougeIndex(threshold)
        seen.add("other", other)
        assert seen.find(text) == expected


def test_the_first_text_added_is_the_one_found() -> None:
    seen = RougeIndex(0.5)
    for id, text in (
        ("far", "red green blue"),
        ("first", "play the song again"),
        ("same", "play that song again"),
    ):
        seen.add(id, text)
    # three of four words in order: precision = recall = 3/4
    assert seen.find("Play that song, again!") == Match("first", 0.75)


def test_order_matters_and_not_the_bag_of_words() -> None:
    seen = RougeIndex(0.7)
    seen.add("row", "dog bites man")
    assert seen.find("man bites dog") is None


def test_texts_without_a_letter_or_digit_are_never_found() -> None:
    seen = RougeIndex(0.5)
    for id, text in (("signs", "?!"), ("pictures", "🙂🙂"), ("empty", "")):
        seen.add(id, text)
    assert [seen.find(text) for text in ("?!", "🙂🙂", "", "play")] == [None] * 4


def test_an_empty_index_finds_nothing() -> None:
    assert RougeIndex(0.95).find("anything") is None


@pytest.mark.parametrize("frequent", [0, 10, 1_000])
def test_questions_between_additions_change_no_answer(frequent: int) -> None:
    draw = random.Random(3)
    texts = [" ".join(draw.choices("abcdefghij", k=draw.randrange(1, 9))) for _ in range(300)]
    asked, silent = RougeIndex(0.7, frequent), RougeIndex(0.7)
    for number, text in enumerate(texts):
        asked.find(f"{text} new{number}")
        asked.add(str(number), text)
        silent.add(str(number), text)
    assert [asked.find(text) for text in texts] == [silent.find(text) for text in texts]


def test_rows_of_fifty_thousand_characters_are_scored_by_what_was_taken_out() -> None:
    draw = random.Random(11)
    words = [f"{draw.randrange(36**4):05d}" for _ in range(8400)]
    seen = RougeIndex(0.95)
    seen.add("row", " ".join(words))
    for number in range(200):
        seen.add(f"other {number}", " ".join(draw.sample(words, len(words))))
    removed = draw.sample(range(8400), 801)
    for count in (800, 801):  # 2 * 7600 / (8400 + 7600) is 0.95, which the steps of rouge-score round up
        gone = set(removed[:count])
        shorter = " ".join(word for at, word in enumerate(words) if at not in gone)
        expected = Match("row", 0.9500000000000001) if count == 800 else None
        assert seen.find(shorter) == expected


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, math.nan])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold lies above 0"):
        RougeIndex(threshold)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("У Анны 3 кошки и 5 собак. Сколько их?", "Поезд шёл 3 часа, затем ещё 5. Сколько их?", 0.5),
        ("我今天买了8个苹果，你要吗？", "大约煮8分钟就可以了。", 0.15),
        ("我今天买了8个苹果，你要吗？", "我今天买了9个苹果，你要吗？", 0.95),
        ("Поезд шёл 3 часа", "Поезд шёл 3 часа!", 1.0),
    ],
)
def test_texts_of_other_scripts_are_compared_by_their_words(one, other, alike):
    """Which rouge-score cannot see: it would compare them by their numbers."""
    seen = RougeIndex(0.05)
    seen.add("one", one)
    match = seen.find(other)
    score = match.score if match else 0.0
    assert alike - 0.15 < score <= alike


def test_letters_with_accents_are_what_rouge_score_makes_of_them():
    text = "L'été où Zoë goûta 3 crêpes, naïvement…"
    assert tokenise(text) == tokenize(text, None)
