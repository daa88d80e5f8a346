"""Augmentation with a scripted teacher: what is asked for, attempt by attempt, and what comes of odd answers."""

import re

import pytest

from tasks.augment.config import AugmentConfig
from tasks.augment.teacher import Teacher, TeacherConfig, locate_teacher
from tasks.augment.until_kept import NO_CHECK, Augmentation
from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_examples, read_records, write_rows
from tasks.core.generators.load import EngineConfig
from tasks.core.generators.openai_compatible import EndpointConfig
from tasks.core.references import ModelRef
from tasks.evaluate import EvaluationConfig
from tasks.filter.rules import FilterConfig
from tasks.problems.base import ProblemConfig
from tasks.sft.config import TrainingConfig
from tasks.student import Student
from tests.flows.teacher import asked_for, write_texts
from tests.scripted_server import ScriptedServer, completion, refusal

PROBLEM = ProblemConfig(name="classification", labels=("music", "weather"))
PARENTS = [make_example("play some jazz", "music"), make_example("will it rain", "weather")]
POOL = [*PARENTS, make_example("turn up the radio", "music"), make_example("is it cold", "weather")]
TEST = [make_example("sing me a lullaby tonight", "music")]


class PlainRun:
    """Runs stages as the plain functions they are."""

    iteration = 2

    def __init__(self, folder):
        self.folder, self.labels = folder, []

    def stage(self, stage, config, inputs, *, label="", training=False):
        self.labels.append(label)
        out = self.folder / str(len(self.labels))
        out.mkdir(parents=True)
        return stage.run(config, inputs, out, lambda event: None)


class Bench:
    def __init__(self, folder):
        self.folder, self.run = folder, PlainRun(folder / "run")
        self.server = None

    def augment(self, script, *, parents=PARENTS, pool=POOL, labels=NO_CHECK, **config):
        known, test = (
            write_rows(self.folder / "pool.jsonl", pool),
            write_rows(self.folder / "test.jsonl", TEST),
        )
        base = ModelRef(uri="not used", digest="")
        with ScriptedServer(script) as self.server:
            endpoint = EndpointConfig(url=self.server.url, model="scripted", backoff_s=0.01, attempts=3)
            augmentation = Augmentation(
                Student(self.run, base, PROBLEM, TrainingConfig(), EvaluationConfig()),
                AugmentConfig(**config),
                FilterConfig(),
                Teacher(engine=EngineConfig(engine="openai", endpoint=endpoint)),
                pool=known,
                test=test,
                labels=labels,
            )
            return augmentation.until_kept(write_rows(self.folder / "parents.jsonl", parents), known)

    def sizes(self):
        return [asked_for(request.json) for request in self.server.requests]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_every_failed_row_gets_its_new_rows_with_their_lineage(bench):
    new = bench.augment(write_texts, rows=3)
    kept = read_examples(new.kept)
    assert [(row.parent, row.root, row.target, row.step, row.origin) for row in kept] == [
        (parent.id, parent.id, parent.target, 2, "synthetic") for parent in PARENTS for _ in range(3)
    ]
    assert (new.generated, new.kept.rows, new.shortfall, new.usage.calls) == (6, 6, 0, 2)
    assert bench.sizes() == [3, 3]
    assert bench.run.labels == ["augment", "filter"]
    assert new.metrics()["data/kept"] == 6


def test_where_nothing_is_wrong_nobody_is_asked(bench):
    new = bench.augment(write_texts, parents=[])
    assert (new.kept, new.generated, bench.run.labels, bench.server.requests) == (None, 0, [], [])


def test_requests_are_no_larger_than_ten(bench):
    new = bench.augment(write_texts, rows=23)
    assert sorted(bench.sizes()) == [3, 3, 10, 10, 10, 10]
    assert new.kept.rows == 46


def test_a_teacher_that_repeats_itself_is_asked_again_for_more_and_the_shortfall_is_told(bench):
    def same(request):
        texts = "\n".join("1. always the same words" for _ in range(asked_for(request)))
        return completion(texts)

    new = bench.augment(same, rows=2, attempts=4)
    # One text is new once only; in attempt k a row that lacks n texts is asked for min(n + k, 10).
    assert sorted(bench.sizes()[:2]) == [2, 2]
    assert sorted(bench.sizes()[2:4]) == [2, 3]
    assert sorted(bench.sizes()[4:6]) == [3, 4]
    assert sorted(bench.sizes()[6:]) == [4, 5]
    assert (new.kept.rows, new.shortfall) == (1, 3)
    assert new.generated == sum(bench.sizes())
    assert new.counts["kept"] == 1
    assert sum(new.counts.values()) == new.generated
    assert len(new.exchanges) == len(new.rejected) == 4
    assert bench.run.labels[-2:] == ["augment (attempt 4)", "filter (attempt 4)"]


def test_odd_attempts_show_what_was_kept_and_even_ones_do_not(bench):
    def one_new(request):
        """A new text per attempt, told by the size of the request."""
        return completion(f"1. wholly new words number {'x' * asked_for(request)} of {len(str(request))}")

    new = bench.augment(one_new, rows=3, attempts=3)
    first, second, third = (
        [request.json["messages"] for request in bench.server.requests[start : start + 2]]
        for start in (0, 2, 4)
    )
    texts = [row.input for row in read_examples(new.kept)]
    assert [text for text in texts if text in str(first)] == []
    assert len([text for text in texts if text in str(second)]) == 2
    assert [text for text in texts if text in str(third)] == []
    assert all("Differ from all texts above." in str(messages) for messages in second)


def test_shown_rows_are_of_the_parents_class_and_never_the_parent(bench):
    bench.augment(write_texts, shown=5)
    for request in bench.server.requests:
        label = re.search(r'class "(\w+)"', request.prompt).group(1)
        other = {"music": "weather", "weather": "music"}[label]
        text = str(request.json["messages"])
        mates = [row.input for row in POOL if row.target == label and row not in PARENTS]
        strangers = [row.input for row in POOL if row.target == other]
        assert [mate for mate in mates if mate not in text] == []
        assert [stranger for stranger in strangers if stranger in text] == []


@pytest.mark.parametrize(
    ("text", "generated"),
    [
        ("", 0),
        ("I am sorry, but I cannot help with that.", 0),
        ("\0\x1b[31m{{7*7}} <script>alert(1)</script>", 0),
        ("1.\n2.   \n3. ...", 0),
    ],
)
def test_answers_without_a_row_bring_nothing_and_are_kept_for_inspection(bench, text, generated):
    new = bench.augment(lambda request: completion(text), attempts=2)
    assert (new.generated, new.kept.rows, new.shortfall) == (generated, 0, 2)
    exchanges = [record for ref in new.exchanges for record in read_records(ref)]
    assert [record["text"] for record in exchanges] == [text] * 4


def test_the_last_row_of_a_cut_answer_is_left_out(bench):
    def cut(request):
        return completion("1. whole words of one\n2. half of ano", finish_reason="length")

    new = bench.augment(cut, attempts=1)
    assert {row.input for row in read_examples(new.kept)} == {"whole words of one"}
    assert new.generated == 2  # one from each parent


def test_rows_that_repeat_data_are_rejected_by_name(bench):
    def repeat(request):
        return completion(f"1. {TEST[0].input}\n2. {POOL[2].input.upper()}\n3. something else entirely")

    new = bench.augment(repeat, rows=3, attempts=1)
    assert (new.counts["contamination"], new.counts["exact_duplicate"], new.counts["kept"]) == (2, 3, 1)


def test_surplus_rows_are_not_kept(bench):
    def generous(request):
        return completion(
            "\n".join(f"{n}. {'abcdefgh'[n] * 9} {n} of {len(str(request))}" for n in range(1, 7))
        )

    new = bench.augment(generous, rows=2)
    assert (new.generated, new.kept.rows, new.counts["surplus"]) == (12, 4, 8)


def test_a_rate_limit_delays_and_loses_nothing(bench):
    refused = []

    def busy_at_first(request):
        if len(refused) < 2:
            refused.append(request)
            return refusal(429, "slow down", headers={"Retry-After": "0"})
        return write_texts(request)

    new = bench.augment(busy_at_first, rows=2)
    assert (new.kept.rows, new.shortfall, len(refused)) == (4, 0, 2)


def test_a_request_that_fails_for_good_costs_its_rows_alone(bench):
    def never_for_music(request):
        if 'class "music"' in request["messages"][-1]["content"]:
            return refusal(400, "content filter")
        return write_texts(request)

    new = bench.augment(never_for_music, attempts=2)
    assert [row.target for row in read_examples(new.kept)] == ["weather"]
    assert new.shortfall == 1
    errors = [record["error"] for ref in new.exchanges for record in read_records(ref) if record["error"]]
    assert len(errors) == 2
    assert "content filter" in errors[0]


def test_the_same_seed_asks_the_same_and_another_one_shows_other_rows(tmp_path):
    pool = [make_example(f"song number {number}", "music") for number in range(20)]

    def prompts(name, seed):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name)
        bench.augment(write_texts, pool=pool, shown=3, seed=seed)
        return sorted(str(request.json["messages"]) for request in bench.server.requests)

    assert prompts("a", 1) == prompts("b", 1)
    assert prompts("c", 1) != prompts("d", 2)


def test_a_teacher_that_cannot_be_reached_is_refused_before_any_work():
    with ScriptedServer() as server:
        url = server.url
        found = locate_teacher(_at(url))
    assert found.engine.endpoint.model == "scripted"
    with pytest.raises(UserError, match="cannot be reached") as caught:
        locate_teacher(_at(url))
    assert caught.value.field.startswith("teacher.engine.endpoint")


def _at(url: str) -> TeacherConfig:
    return TeacherConfig(engine=EngineConfig(engine="openai", endpoint=EndpointConfig(url=url)))
