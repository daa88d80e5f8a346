"""Rounds against a real server that answers as a test scripts it."""

import json
import re

import pytest

from tasks.augment.teacher import Teacher
from tasks.core.config import identity
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.generators.openai_compatible import EndpointFailed
from tasks.label import stage
from tasks.label.config import LabellingConfig
from tasks.label.show import in_words, saved_or_more
from tasks.label.stage import LabelInputs
from tasks.problems.base import ProblemConfig
from tests.scripted_server import ScriptedServer, completion, refusal

LABELS = ("even", "odd")
_INPUT = re.compile(r"^Input (\d+): number (\d+)$", re.MULTILINE)


def parity(number: int) -> str:
    return LABELS[number % 2]


def numbers_in(request) -> list[int]:
    """The numbers of a batch, in their order, or the one that is asked alone."""
    prompt = request["messages"][-1]["content"]
    return [int(number) for _, number in _INPUT.findall(prompt)] or [int(prompt.split()[-1])]


def lines(numbers, confident=lambda place, number: True, answer=lambda place, number: parity(number)):
    return "\n".join(
        f"Label for Input {place}: [{answer(place, number)}] "
        f"({'confident' if confident(place, number) else 'not confident'})"
        for place, number in enumerate(numbers)
    )


def honest(request):
    numbers = numbers_in(request)
    text = lines(numbers) if "Input 0" in request["messages"][-1]["content"] else parity(numbers[0])
    return completion(text, tokens=(10 * len(numbers), 5 * len(numbers)))


def label(folder, server, count=10, known=True, reports=None, **settings):
    rows = [make_example(f"number {number}", parity(number) if known else "") for number in range(count)]
    endpoint = EndpointConfig(url=server.url, model="scripted", attempts=2, backoff_s=0.01)
    teacher = Teacher(engine=EngineConfig(engine="openai", endpoint=endpoint))
    inputs = LabelInputs(
        teacher=teacher,
        rows=write_rows(folder / "rows.jsonl", rows),
        problem=ProblemConfig(name="classification", labels=LABELS),
        known=known,
    )
    config = LabellingConfig(**{"batch_size": 4, "rounds": 3} | settings)
    return stage.run(config, inputs, folder, (reports if reports is not None else []).append)


def test_rows_are_answered_in_batches_and_settled_after_two_confident_rounds(tmp_path):
    reports = []
    with ScriptedServer(honest) as server:
        result = label(tmp_path, server, reports=reports)
        sizes = [len(numbers_in(request.json)) for request in server.requests]
    assert sorted(sizes) == [2, 2, 4, 4, 4, 4]  # two rounds of ten rows, no third
    assert (result.accuracy, result.answered, result.cost.calls) == (1.0, 10, 6)
    assert result.cost.calls_saved == pytest.approx(0.4)
    assert (result.cost.prompt_tokens, result.cost.completion_tokens) == (200, 100)
    labelled = list(read_records(result.rows))
    assert [row["input"] for row in labelled] == [
        f"number {number}" for number in range(10)
    ]  # in their own order
    assert {(row["rounds"], row["confident"], row["agreement"]) for row in labelled} == {(2, 2, 1.0)}
    assert reports[-1]["progress"] == [10, 10]


def test_without_early_stopping_every_row_has_every_round_in_another_order(tmp_path):
    with ScriptedServer(honest) as server:
        result = label(tmp_path, server, stop_early=False)
        orders = {tuple(numbers_in(request.json)) for request in server.requests}
    assert len(orders) == result.cost.calls == 9
    assert {row["rounds"] for row in read_records(result.rows)} == {3}


def test_answers_are_voted_on_as_they_stood_and_unsure_ones_count_less(tmp_path):
    """The first place of a batch is answered wrong, and the model knows that it is not sure there."""

    def biased(request):
        numbers = numbers_in(request)
        wrong = lines(
            numbers, lambda place, number: place > 0, lambda place, number: parity(number + (place == 0))
        )
        return completion(wrong)

    with ScriptedServer(biased) as server:
        one = label(tmp_path / "one", server, rounds=1, count=40)
        five = label(tmp_path / "five", server, rounds=5, count=40, vote="weighted")
    assert one.accuracy == 0.75
    assert five.accuracy == 1.0
    assert five.rounds[0].right == 0.75


def test_what_a_batch_lacks_is_asked_alone_and_a_row_nobody_answers_stays_without(tmp_path):
    def careless(request):
        numbers = numbers_in(request)
        if "Input 0" not in request["messages"][-1]["content"]:
            return completion("I cannot say" if numbers == [3] else f"{parity(numbers[0])}.")
        keep = [
            line for line, number in zip(lines(numbers).splitlines(), numbers, strict=True) if number % 5 != 3
        ]
        return completion("\n".join([*keep, "Label for Input 99: [even] (confident)"]))

    with ScriptedServer(careless) as server:
        result = label(tmp_path, server, rounds=1, known=False)
    answers = {row["input"]: row["answer"] for row in read_records(result.rows)}
    assert answers == {f"number {n}": None if n == 3 else parity(n) for n in range(10)}
    assert (result.answered, result.accuracy) == (9, None)
    counts = result.rounds[0].counts
    assert (counts["missing"], counts["alone"], counts["out_of_range"], result.cost.calls) == (2, 2, 3, 5)


def test_a_batch_that_the_server_finds_too_long_is_halved_until_it_fits(tmp_path):
    def narrow(request):
        return refusal(400, "the context is too small") if len(numbers_in(request)) > 2 else honest(request)

    with ScriptedServer(narrow) as server:
        result = label(tmp_path, server, count=8, batch_size=8, rounds=1)
    assert result.accuracy == 1.0
    assert result.rounds[0].counts["halved"] == 3  # 8, and twice 4


def test_a_given_context_makes_batches_smaller_from_the_start(tmp_path):
    with ScriptedServer(honest) as server:
        whole = label(tmp_path / "whole", server, batch_size=10, rounds=1)
        small = label(tmp_path / "small", server, batch_size=10, rounds=1, context=500)
    assert (whole.cost.calls, whole.accuracy) == (1, 1.0)
    assert small.cost.calls > 1
    assert (small.accuracy, small.rounds[0].counts["halved"]) == (1.0, 0)


def test_rounds_that_ended_before_a_rate_limit_are_not_asked_again(tmp_path):
    limited = [False]

    def script(request):
        return refusal(429, "slow down") if limited[0] else honest(request)

    def until_the_third(event):
        limited[0] |= event["text"].startswith("round 2") and event["progress"] == [10, 10]

    class Watching(list):
        append = staticmethod(until_the_third)

    with ScriptedServer(script) as server:
        with pytest.raises(EndpointFailed, match="slow down"):
            label(tmp_path, server, stop_early=False, reports=Watching())
        assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == [
            "round-1.json",
            "round-2.json",
        ]
        limited[0], before = False, len(server.requests)
        result = label(tmp_path, server, stop_early=False)
        assert len(server.requests) - before == 3  # the third round alone
    assert (result.accuracy, result.cost.calls) == (1.0, 9)
    with ScriptedServer(honest) as server:
        undisturbed = label(tmp_path / "undisturbed", server, stop_early=False)
    assert list(read_records(result.rows)) == list(read_records(undisturbed.rows))


def test_batches_can_shrink_each_for_itself_as_published(tmp_path):
    """Half of the rows are settled after two rounds; the others stay among those of their batch."""

    def half(request):
        return completion(lines(numbers_in(request), lambda place, number: number < 8))

    sizes = {}
    for refill in (True, False):
        with ScriptedServer(half) as server:
            label(tmp_path / str(refill), server, count=16, batch_size=8, refill=refill, ask_again=0)
            asked = [set(numbers_in(request.json)) for request in server.requests]
            sizes[refill] = [
                sorted(map(len, asked[:2])),
                sorted(map(len, asked[2:4])),
                sorted(map(len, asked[4:])),
            ]
            first = [next(batch for batch in asked[:2] if number in batch) for number in range(16)]
            if not refill:
                assert all(batch <= first[min(batch)] for batch in asked)
    assert sizes[True] == [[8, 8], [8, 8], [8]]
    assert sum(sizes[False][2]) == 8


def test_a_row_that_no_batch_has_room_for_is_asked_alone_also_where_nothing_is_asked_again(tmp_path):
    with ScriptedServer(honest) as server:
        result = label(tmp_path, server, count=5, batch_size=4, ask_again=0)
    assert (result.accuracy, result.rounds[0].counts["alone"], result.rounds[0].answered) == (1.0, 1, 5)


@pytest.mark.parametrize("size", [1, 4])
def test_one_row_is_a_batch_too(tmp_path, size):
    with ScriptedServer(honest) as server:
        result = label(tmp_path, server, count=1, batch_size=size)
        assert all(
            "Input 0" not in request.prompt for request in server.requests
        )  # it is asked as it always is
    assert (result.accuracy, result.answered) == (1.0, 1)


def test_the_money_is_that_of_the_tokens_at_the_prices_of_today(tmp_path):
    with ScriptedServer(honest) as server:
        result = label(tmp_path, server, rounds=1)
    prices = LabellingConfig(input_price=2.0, output_price=10.0)
    assert identity(prices) == identity(LabellingConfig())  # known or not, nothing is asked again for them
    assert result.cost.money(prices) == pytest.approx((100 * 2 + 50 * 10) / 1e6)
    assert "0.0007 in money" in in_words(prices, result)
    assert "money" not in in_words(LabellingConfig(), result)
    assert json.loads(result.model_dump_json())["cost"]["prompt_tokens"] == 100


@pytest.mark.parametrize(("share", "words"), [(0.84, "84% fewer"), (0.0, "0% fewer"), (-4.83, "483% more")])
def test_what_was_not_saved_is_called_more(share, words):
    assert saved_or_more(share) == words
