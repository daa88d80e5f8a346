"""Alignment of a shorter text with its original: which words count as kept."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.compress.annotating import align, word_key
from tasks.core.compression.words import split_words


def labels(original, compressed, window=150):
    found = align(split_words(original).texts, split_words(compressed).texts, window)
    return "".join("01"[kept] for kept in found.kept)


@pytest.mark.parametrize(
    ("original", "compressed", "expected"),
    [
        ("The library opens at nine", "library opens nine", "01101"),
        ("LIBRARY Opens", "library opens", "11"),  # case
        ("he opens the books", "open book", "0101"),  # inflection, the label on the word as it is written
        ("the dog and the cat", "the cat", "00011"),  # a repeated word goes where its neighbour is
        ("the cat and the dog", "the cat", "11000"),
        ("to be or not to be", "to be", "110000"),  # of equals the first
        ("to be or not to be", "not to be", "000111"),
        ("a b c d", "c a", "1010"),  # reordered: found backward
        ("a b c", "", "000"),
        ("", "a", ""),
        ("a b c", "x y", "000"),
        ("你好世界", "你界", "1001"),
    ],
)
def test_labels(original, compressed, expected):
    assert labels(original, compressed) == expected


def test_a_word_beyond_the_window_is_not_found_and_widens_the_gap():
    original = ["start", *(f"w{n}" for n in range(20)), "end"]
    near, far = align(original, ["start", "end"], 30), align(original, ["start", "end"], 10)
    assert (sum(near.kept), near.gap) == (2, 0.0)
    assert sum(far.kept) == 1
    assert far.gap == pytest.approx(1 / 22)  # hitting rate 2 / 22 less matching rate 1 / 22


def test_figures_of_a_teacher_that_adds_repeats_and_reorders():
    found = align(["a", "b", "c", "d"], ["c", "x", "a", "a", "y"], 10)
    assert (found.compressed, found.absent, found.reordered) == (5, 2, 1)
    assert found.variation == 2 / 5
    assert found.kept == [True, False, True, False]
    assert found.gap == (3 - 2) / 4


WORDS = st.lists(st.sampled_from(["the", "cat", "cats", "Cat", "sat", "on", ".", "1"]), max_size=40)


@settings(max_examples=80, deadline=None)
@given(WORDS, st.data())
def test_a_teacher_that_only_deletes_is_followed_word_for_word(original, data):
    stays = data.draw(st.lists(st.booleans(), min_size=len(original), max_size=len(original)))
    compressed = [word for word, kept in zip(original, stays, strict=True) if kept]
    found = align(original, compressed, len(original) + 1)
    assert (found.variation, found.gap) == (0.0, 0.0)
    kept = [word_key(word) for word, label in zip(original, found.kept, strict=True) if label]
    assert sorted(kept) == sorted(map(word_key, compressed))


@settings(max_examples=80, deadline=None)
@given(WORDS, st.lists(st.sampled_from(["the", "cat", "x", "sits", "."]), max_size=60), st.integers(1, 50))
def test_no_word_is_labelled_that_the_teacher_did_not_write(original, compressed, window):
    found = align(original, compressed, window)
    left = [word_key(word) for word in compressed]
    for word, kept in zip(original, found.kept, strict=True):
        if kept:
            left.remove(word_key(word))
    assert found.gap >= 0
    assert 0 <= found.variation <= 1
    assert align(original, compressed, window) == found


@given(st.permutations([f"w{n}x" for n in range(12)]), st.sets(st.integers(0, 11)))
def test_words_that_occur_once_are_labelled_exactly(original, stays):
    found = align(original, [original[place] for place in sorted(stays)], 150)
    assert {place for place, kept in enumerate(found.kept) if kept} == stays
    assert found.reordered == 0


def test_long_texts_are_labelled_as_well_as_short_ones():
    """A text of 4,000 words of which every word of a third of its runs is kept, one in fifty changed."""
    draw = random.Random(0)
    original = [f"w{int(500 ** draw.random())}" for _ in range(4000)]
    truth, stays = [], True
    for _ in original:
        stays = draw.random() < 0.5 if draw.random() < 0.3 else stays
        truth.append(stays)
    compressed = [word for word, kept in zip(original, truth, strict=True) if kept]
    compressed = ["changed" if draw.random() < 0.02 else word for word in compressed]
    found = align(original, compressed, 150)
    wrong = sum(label != kept for label, kept in zip(found.kept, truth, strict=True))
    assert wrong / len(original) < 0.05
