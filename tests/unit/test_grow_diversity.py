"""Diversity of texts, against figures counted by hand."""

from itertools import pairwise

import pytest

from tasks.grow.diversity import MOST_COMPARED, distinct_n, length_statistics, self_similarity


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a", "b a"], 1, 2 / 5),
        (["a b a", "b a"], 2, 2 / 3),  # ab, ba, and ba again
        (["A b", "a  B\n"], 2, 1 / 2),  # neither case nor white space makes a difference
        (["a", "b"], 2, 0.0),  # no pair of words at all
        (["a", "b c"], 2, 1.0),
        (["word, word"], 1, 1.0),  # white space alone parts words
        ([""], 1, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct_n_is_different_over_all_n_grams(texts: list[str], n: int, expected: float) -> None:
    assert distinct_n(texts, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([["a b c", "a b d"]], 1 / 3),  # {ab, bc} and {ab, bd}
        ([["a b c", "a b c"]], 1.0),
        ([["a b", "c d"]], 0.0),
        ([["a b c", "a b d", "A B C"]], (1 / 3 + 1.0 + 1 / 3) / 3),
        (
            [["yes", "Yes"], ["yes", "no"]],
            0.5,
        ),  # a mean over prompts, and single words where there are no pairs
        ([["a b c", "a b d"], ["alone"], []], 1 / 3),
        (
            [["a b", "a b"], ["a b", "c d", "e f"]],
            0.5,
        ),  # every prompt counts alike, however many samples it has
        ([["", ""]], 1.0),
        ([["", "a"]], 0.0),
        ([], 0.0),
    ],
)
def test_self_similarity_is_the_mean_share_of_common_word_pairs(
    groups: list[list[str]], expected: float
) -> None:
    assert self_similarity(groups) == pytest.approx(expected)


def test_self_similarity_agrees_with_a_plain_count() -> None:
    texts = ["the cat sat on the mat", "the cat sat on a mat", "a dog sat on the mat", "no"]

    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return set(pairwise(words)) or {(word,) for word in words}

    pairs = [(one, two) for i, one in enumerate(texts) for two in texts[:i]]
    shares = [len(grams(a) & grams(b)) / len(grams(a) | grams(b)) for a, b in pairs]
    assert self_similarity([texts]) == pytest.approx(sum(shares) / 6)


def test_of_very_many_samples_the_first_are_compared() -> None:
    alike, others = ["a b"] * MOST_COMPARED, ["c d", "e f"]
    assert self_similarity([alike + others]) == 1.0
    assert self_similarity([others + alike]) < 1.0


def test_lengths_are_counted_in_words() -> None:
    assert length_statistics(["one", "one two  three\n"]) == (2.0, 1.0)
    assert length_statistics(["one two"]) == (2.0, 0.0)
    assert length_statistics(["", "a b"]) == (1.0, 1.0)
    assert length_statistics([]) == (0.0, 0.0)
