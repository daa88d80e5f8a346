"""The four reversals: what they do to a row, and that they lose nothing, whatever the script."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.entities.spans import occurrences, resolve
from tasks.reversal.reversals import reverse_entities, reverse_segments, reverse_tokens, reverse_words
from tasks.reversal.words import _in_any_script, _in_ascii, count_words, split_words

SENTENCE = "He was born on July 3, 1962, in Syracuse, New York."


@pytest.mark.parametrize(
    ("text", "reversed_text"),
    [
        ("Paris is the capital of France.", "France of capital the is Paris."),
        (SENTENCE, "York New, Syracuse in, 1962, 3 July on born was He."),
        ("don't e-mail  x_y at 12:30!", "12:30 at x_y  e-mail don't!"),
        ("  \tone  ", "  \tone  "),
        ("", ""),
        ("?!", "?!"),
        ("東京タワーは高い。", "い高はタワー京東。"),
        ("人々 came", "came 人々"),
        ("שלום עולם!", "עולם שלום!"),
        ("👩‍🚀 flew 🇫🇷 #️⃣ cafe\u0301 nai\u0308ve", "nai\u0308ve cafe\u0301 #️⃣ 🇫🇷 flew 👩‍🚀"),
        ("one\r\ntwo\n\nthree", "three\n\ntwo\r\none"),
        ("\u0301 stray mark", "\u0301 mark stray"),
    ],
)
def test_words_are_reversed_and_what_separates_them_among_itself(text, reversed_text):
    assert reverse_words(text) == reversed_text
    assert reverse_words(reversed_text) == text


def test_tokens_are_reversed():
    assert reverse_tokens([3, 1, 2]) == [2, 1, 3]
    assert reverse_tokens([]) == []


def test_entities_stay_whole():
    names = [span for name in ("July 3, 1962", "New York") for span in occurrences(SENTENCE, name)]
    text, spans = reverse_entities(SENTENCE, resolve(SENTENCE, names))
    assert text == "New York, Syracuse in, July 3, 1962 on born was He."
    assert [text[begin:end] for begin, end in spans] == ["New York", "July 3, 1962"]


def test_a_row_that_is_one_entity_stays_as_it_is():
    text = "United States of America."
    assert reverse_entities(text, resolve(text, [(0, 24)])) == (text, [(0, 24)])


def test_of_overlapping_entities_the_longest_stays_whole_and_of_equal_ones_the_first():
    text = "the New York City Hall of Records"
    york, city, hall = (occurrences(text, name) for name in ("New York", "York City Hall", "City Hall"))
    assert resolve(text, [*york, *city, *hall]) == city
    assert resolve(text, [*hall, *york]) == sorted([*york, *hall])
    assert resolve("a b c", [(2, 5), (0, 3)]) == [(0, 3)]


def test_an_entity_is_widened_to_whole_words_and_one_without_a_word_is_left_out():
    assert resolve("Paris's roofs, ...", [(0, 5), (15, 18), (14, 14)]) == [(0, 7)]
    with pytest.raises(ValueError, match="not within"):
        resolve("Paris", [(0, 9)])


def test_a_name_is_not_found_inside_a_longer_word():
    assert occurrences("Niger, Nigeria and Niger", "Niger") == [(0, 5), (19, 24)]
    assert occurrences("", "") == []
    assert occurrences("to D.C. and", "D.C.") == [(3, 6)]


def test_segments_keep_their_inside_and_the_marker_tells_them_apart():
    turned = reverse_segments(SENTENCE, 3, Random(3))
    assert turned == "York [REV] New, [REV] in Syracuse, [REV] 3, 1962 [REV] on July [REV] was born [REV] He."
    segments = turned.removesuffix(".").split("[REV] ")
    assert [word for part in reversed(segments) for word in split_words(part)[1::2]] == split_words(SENTENCE)[
        1::2
    ]


def test_segments_of_one_word_are_words_and_a_long_one_is_the_row():
    assert reverse_segments(SENTENCE, 1, Random(0), "") == reverse_words(SENTENCE)
    assert {reverse_segments("a b", 50, Random(seed), "") for seed in range(40)} == {"a b", "b a"}
    with pytest.raises(ValueError, match="at least one word"):
        reverse_segments("a b", 0, Random(0))


def test_lengths_of_segments_are_drawn_evenly():
    lengths = []
    for seed in range(300):
        *whole, _ = reversed(reverse_segments(" ".join("abcdefghijkl"), 3, Random(seed)).split("[REV] "))
        lengths += map(count_words, whole)
    shares = [lengths.count(length) / len(lengths) for length in (1, 2, 3)]
    assert max(shares) < 0.37
    assert min(shares) > 0.29


PIECES = st.sampled_from(" .,-'\n\u0301\u200dab1漢字あカー_👍🏽éא#️⃣")
TEXTS = st.text(PIECES | st.characters(exclude_categories=["Cs"]), max_size=25)
SPANS = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=4)


@settings(max_examples=300, deadline=None)
@given(TEXTS, SPANS, st.integers(1, 6))
def test_no_reversal_loses_anything(text, pairs, longest):
    parts = split_words(text)
    assert "".join(parts) == text
    turned = reverse_words(text)
    assert split_words(turned)[1::2] == parts[1::2][::-1]
    assert reverse_words(turned) == text
    entities = resolve(text, [(min(*pair, len(text)), min(max(pair), len(text))) for pair in pairs])
    whole, moved = reverse_entities(text, entities)
    assert [whole[begin:end] for begin, end in moved] == [text[begin:end] for begin, end in entities][::-1]
    assert reverse_entities(whole, moved) == (text, entities)
    assert reverse_entities(text, [])[0] == turned
    cut = reverse_segments(text, longest, Random(0), "")
    assert sorted(cut) == sorted(text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_the_fast_way_for_ascii_is_the_same_rule(text):
    assert _in_ascii().split(text) == _in_any_script().split(text)
