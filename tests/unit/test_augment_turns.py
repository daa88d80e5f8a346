"""What a teacher is asked for when rows are asked for one by one."""

from pathlib import Path

import pytest

from tasks.augment.config import AugmentConfig
from tasks.augment.requests import AugmentInputs, plan_requests
from tasks.augment.teacher import Teacher
from tasks.core.examples import Example, make_example, write_rows
from tasks.core.generators.load import EngineConfig
from tasks.problems.base import ProblemConfig
from tasks.problems.classification import Classification
from tasks.problems.numeric import Numeric

PROBLEM = Classification(ProblemConfig(labels=("AddToPlaylist", "GetWeather", "rate_book")))
WEATHER = [
    make_example(text, "GetWeather") for text in ("Will it rain?", "Is it cold in Oslo?", "Storm today?")
]
OTHERS = [make_example("Add this song", "AddToPlaylist"), make_example("Five stars for Emma", "rate_book")]


def inputs(folder: Path, kept: list[Example] | None = None, attempt: int = 0) -> AugmentInputs:
    return AugmentInputs(
        teacher=Teacher(engine=EngineConfig()),
        problem=PROBLEM.config,
        parents=write_rows(folder / "parents.jsonl", WEATHER[:1]),
        pool=write_rows(folder / "pool.jsonl", [*WEATHER, *OTHERS]),
        kept=write_rows(folder / "kept.jsonl", kept) if kept is not None else None,
        step=1,
        attempt=attempt,
    )


def exchanges(prompt: list) -> list[tuple[str, str]]:
    """(cue, text) of every finished exchange."""
    turns = [message["content"] for message in prompt[1:-1]]
    return list(zip(turns[::2], turns[1::2], strict=True))


def test_every_row_is_a_request_of_its_own_ending_with_the_cue(tmp_path: Path) -> None:
    config = AugmentConfig(form="turns", rows=3, shown=2, contrast=1, system="Requests to an assistant.")
    requests = plan_requests(config, inputs(tmp_path), PROBLEM)
    assert [request.parent for request in requests] == WEATHER[:1] * 3
    for prompt in (request.prompt for request in requests):
        assert prompt[0] == {"role": "system", "content": "Requests to an assistant."}
        assert prompt[-1] == {"role": "user", "content": "get weather"}
        seen = exchanges(prompt)
        assert set(seen[:2]) == {("add to playlist", "Add this song"), ("rate book", "Five stars for Emma")}
        assert {text for cue, text in seen[2:4]} == {"Is it cold in Oslo?", "Storm today?"}
        assert seen[4:] == [("get weather", "Will it rain?")]


def test_an_odd_attempt_shows_what_was_kept_and_asks_for_one_more(tmp_path: Path) -> None:
    kept = [make_example("Hot in Rome?", "GetWeather", origin="synthetic", parent=WEATHER[0].id)]
    config = AugmentConfig(form="turns", rows=2)
    first = plan_requests(config, inputs(tmp_path, kept, attempt=0), PROBLEM)
    again = plan_requests(config, inputs(tmp_path, kept, attempt=1), PROBLEM)
    assert [exchanges(request.prompt) for request in first] == [[("get weather", "Will it rain?")]]
    both = [("get weather", "Hot in Rome?"), ("get weather", "Will it rain?")]
    assert [exchanges(request.prompt) for request in again] == [both, both]


def test_a_parent_that_has_its_rows_is_not_asked_for_more(tmp_path: Path) -> None:
    kept = [make_example("Hot in Rome?", "GetWeather", origin="synthetic", parent=WEATHER[0].id)]
    assert (
        plan_requests(AugmentConfig(form="turns", rows=1), inputs(tmp_path, kept, attempt=1), PROBLEM) == []
    )


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("Is it sunny in Rome?", ["Is it sunny in Rome?"]),
        ("1. Is it sunny?\n2. Is it windy?", ["Is it sunny?"]),
        ('"Is it sunny?"', ["Is it sunny?"]),
        ("Here is one:\nIs it sunny?", []),
        ("", []),
        ("…", []),
    ],
)
def test_the_first_line_of_an_answer_is_the_row(answer: str, texts: list[str]) -> None:
    assert [draft.input for draft in PROBLEM.read_one(answer, WEATHER[0])] == texts
    assert all(draft.target == "GetWeather" for draft in PROBLEM.read_one(answer, WEATHER[0]))


def test_other_problems_show_whole_rows_in_their_own_form() -> None:
    problem = Numeric(ProblemConfig(name="numeric"))
    row = make_example("Two and two?", "#### 4")
    prompt = problem.turns(row, [], "")
    assert prompt[-2]["content"] == problem.show(row)
    two = "\n\n".join(
        problem.show(make_example(text, "#### 9")) for text in ("Four and five?", "Ten less one?")
    )
    assert [draft.input for draft in problem.read_one(two, row)] == ["Four and five?"]
