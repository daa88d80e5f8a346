"""What the filter keeps, what it rejects and the reason it gives."""

import random
from collections.abc import Sequence

import pytest
from pydantic import ValidationError
from rouge_score.rouge_scorer import RougeScorer

from tasks.core.examples import Example, make_example
from tasks.core.generators.base import Message
from tasks.filter.duplicates import normalise
from tasks.filter.rules import FilterConfig, FilterResult, filter_examples
from tasks.problems.base import Draft, Problem, ProblemConfig, Score
from tasks.problems.classification import Classification


class Plain(Problem):
    """A problem that does nothing but own examples."""

    def score(self, example: Example, completion: str) -> Score:
        return Score(value=float(completion == example.target), answer=completion)

    def show(self, example: Example) -> str:
        return example.input

    def read(self, text: str, parent: Example) -> list[Draft]:
        return []

    def request(
        self, parent: Example, shown: Sequence[Example], count: int, avoid: Sequence[str]
    ) -> list[Message]:
        return []


def row(input: str, target: str = "music", **lineage: object) -> Example:
    return make_example(input, target, **lineage)


def run(
    candidates: Sequence[Example],
    config: FilterConfig | None = None,
    *,
    wrong: Sequence[Example] = (),
    kept: Sequence[Example] = (),
    known: Sequence[Example] = (),
    test: Sequence[Example] = (),
    labels: tuple[str, ...] = (),
) -> FilterResult:
    problem = Plain(ProblemConfig(labels=labels))
    return filter_examples(
        config or FilterConfig(), candidates, wrong=wrong, kept=kept, known=known, test=test, problem=problem
    )


SENTENCE = "could you please play the new song by the band that we heard on the radio last night at home"
"""20 words: one more makes 21, F1 = 2 * 20 / 41 = 0.9756 > 0.95."""


def test_a_new_row_is_kept_as_it_came() -> None:
    candidate = row("book a table", origin="synthetic", parent="p", root="r", step=3)
    result = run(
        [candidate], wrong=[row("play a song")], known=[row("play a song")], test=[row("will it rain")]
    )
    assert result.kept == [candidate]
    assert result.rejected == []


def test_no_candidates_give_an_empty_result_with_every_count() -> None:
    result = run([])
    assert (result.kept, result.rejected) == ([], [])
    assert result.counts == dict.fromkeys(
        [
            "kept",
            "malformed",
            "length",
            "label",
            "contamination",
            "exact_duplicate",
            "near_duplicate",
            "rouge",
        ],
        0,
    )


@pytest.mark.parametrize(
    ("candidate", "reason", "detail"),
    [
        (row("  \n"), "malformed", "the input is empty"),
        (row("x" * 31), "length", "the input's length, 31, is not within 2 to 30 characters"),
        (row("y"), "length", "the input's length, 1, is not within 2 to 30 characters"),
        (row("play it", "z" * 31), "length", "the target's length, 31, is not within 2 to 30 characters"),
        (row("play it", "weather"), "label", "'weather' is none of the labels"),
    ],
)
def test_a_row_at_fault_is_rejected_with_its_fault(candidate: Example, reason: str, detail: str) -> None:
    config = FilterConfig(min_characters=2, max_characters=30)
    (rejection,) = run([candidate], config, labels=("music", "z" * 31)).rejected
    assert (rejection.reason, rejection.detail, rejection.against) == (reason, detail, None)


def test_a_label_never_seen_counts_as_such_although_a_classification_finds_it_malformed_too() -> None:
    problem = Classification(ProblemConfig(labels=("music", "weather")))
    rows = [row("play it", "music"), row("play on", "musik")]
    result = filter_examples(FilterConfig(), rows, wrong=[], kept=[], known=[], test=[], problem=problem)
    assert result.kept == rows[:1]
    assert (result.counts["label"], result.counts["malformed"]) == (1, 0)


def test_any_target_passes_while_no_labels_are_known() -> None:
    assert run([row("play it", "whatever")]).counts["kept"] == 1


@pytest.mark.parametrize(
    ("group", "reason"),
    [("test", "contamination"), ("known", "exact_duplicate"), ("wrong", "exact_duplicate")],
)
def test_a_row_equal_but_for_case_and_punctuation_names_the_row_it_repeats(group: str, reason: str) -> None:
    other = row("Play  Jazz, please")
    result = run([row("play jazz please!", "other target")], **{group: [other]})  # type: ignore[arg-type]
    (rejection,) = result.rejected
    assert (rejection.reason, rejection.against, rejection.score) == (reason, other.id, None)


@pytest.mark.parametrize(
    ("group", "reason"),
    [("test", "contamination"), ("known", "near_duplicate"), ("wrong", "rouge"), ("kept", "rouge")],
)
def test_a_row_with_one_word_more_than_another_is_rejected(group: str, reason: str) -> None:
    other = row(SENTENCE)
    result = run([row(SENTENCE + " please")], **{group: [other]})  # type: ignore[arg-type]
    (rejection,) = result.rejected
    assert (rejection.reason, rejection.against) == (reason, other.id)
    assert rejection.score == pytest.approx(40 / 41)


def test_this_steps_rows_among_the_known_ones_fall_under_the_published_rule() -> None:
    wrong = row(SENTENCE)
    (rejection,) = run([row(SENTENCE + " please")], wrong=[wrong], known=[wrong, row("far from it")]).rejected
    assert rejection.reason == "rouge"


def test_a_kept_candidate_counts_against_the_next_and_a_rejected_one_does_not() -> None:
    longer = f"{SENTENCE} please"
    longest = f"{longer} right now"  # 23 words: 40/43 = 0.930 with SENTENCE, 42/44 = 0.955 with `longer`
    first, second, third = row(SENTENCE), row(longer), row(longest)
    result = run([first, second, third])
    assert result.kept == [first, third]
    assert result.rejected[0].against == first.id
    assert run([second, third]).kept == [second]


def test_a_second_run_over_what_was_kept_keeps_nothing() -> None:
    candidates = [row(f"play {name}") for name in ("jazz", "blues", "rock")]
    first = run(candidates)
    again = run(candidates, known=first.kept)
    assert first.counts["kept"] == 3
    assert (again.kept, again.counts["exact_duplicate"]) == ([], 3)


def test_two_calls_keep_what_one_call_keeps() -> None:
    draw = random.Random(5)
    words = SENTENCE.split()
    rows = []
    for _ in range(60):
        changed = list(words)
        for _ in range(draw.randrange(3)):
            changed[draw.randrange(20)] = draw.choice(["jazz", "rock", "today"])
        rows.append(row(" ".join(changed)))
    whole = run(rows)
    first = run(rows[:25])
    second = run(rows[25:], kept=first.kept)
    assert first.kept + second.kept == whole.kept
    assert 0 < whole.counts["rouge"] < 60


def test_the_published_rule_decides_as_the_loop_over_rouge_score() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    draw = random.Random(1)
    names = ["the cure", "abba", "nina simone", "moby", "can"]

    def sentence() -> str:
        extra = draw.sample(["please", "now", "for me", "on spotify", "right away"], draw.randrange(4))
        return " ".join(
            ["i would like you to play the song by", draw.choice(names), "in the kitchen", *extra]
        )

    wrong, candidates = [row(sentence()) for _ in range(5)], [row(sentence()) for _ in range(150)]
    seen, expected = list(wrong), []
    for candidate in candidates:
        if all(scorer.score(s.input, candidate.input)["rougeL"].fmeasure <= 0.9 for s in seen):
            seen.append(candidate)
            expected.append(candidate)
    result = run(candidates, FilterConfig(rouge=0.9), wrong=wrong)
    assert result.kept == expected
    assert result.counts["rouge"] > 0
    assert result.counts["exact_duplicate"] > 0


def test_equal_texts_that_rouge_cannot_see_are_duplicates() -> None:
    chinese, other = row("播放一首歌。"), row("今天会下雨吗")
    result = run([row("播放一首歌"), other], known=[chinese])
    assert result.kept == [other]
    assert result.rejected[0].against == chinese.id


def test_thresholds_of_one_reject_equal_rows_only() -> None:
    off = FilterConfig(rouge=1, near_duplicate=1, contamination=1)
    others = [row(SENTENCE)]
    assert run([row(SENTENCE + " now")], off, known=others, test=others, kept=others).counts["kept"] == 1
    assert run([row(SENTENCE + ".")], off, test=others).counts["contamination"] == 1


def test_counts_are_those_of_the_rows() -> None:
    rows = [row("play jazz"), row("Play jazz!"), row("will it rain"), row(" "), row("book a table")]
    result = run(rows, test=[row("will it rain?")])
    assert result.counts == {
        "kept": 2, "malformed": 1, "length": 0, "label": 0, "contamination": 1, "exact_duplicate": 1,
        "near_duplicate": 0, "rouge": 0,
    }  # fmt: skip
    assert sum(result.counts.values()) == len(rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ｐｌａｙ\tJAZZ,\n please!", "play jazz please"),
        ("STRASSE — Straße", "strasse strasse"),
        ("cafe\u0301", "café"),
        ("3 + 5 = 8", "3 + 5 = 8"),
        ("कि", "कि"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_words_that_differ_in_a_vowel_sign_alone_are_different() -> None:
    assert normalise("कि") != normalise("की")


@pytest.mark.parametrize(
    "setting", [{"rouge": 0}, {"contamination": 1.5}, {"min_characters": 0}, {"rogue": 0.9}]
)
def test_a_setting_out_of_bounds_or_unknown_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        FilterConfig.model_validate(setting)


def test_lengths_that_no_row_can_have_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_characters lies above max_characters"):
        FilterConfig(min_characters=9, max_characters=8)
