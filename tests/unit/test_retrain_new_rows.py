"""New rows by content: a rewritten file is no news, a broken one is named, versions never change or lose a row."""

import gzip
import json
from pathlib import Path

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import read_examples, read_records
from tasks.core.launching.launch import LaunchConfig
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.data.config import DataConfig
from tasks.data.reading import read_located
from tasks.retrain import new_rows
from tasks.retrain.new_rows import NewRows, NewRowsConfig
from tasks.retrain.versions import DataVersion
from tests.s3_server import s3_server

FIRST = [("play jazz", "music"), ("rain today?", "weather")]
TEST = [("louder", "music"), ("sun?", "weather")]


def lines(rows) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


class Place:
    """A folder with first rows, test rows, a location and a store."""

    def __init__(self, folder: Path) -> None:
        self.location = folder / "incoming"
        self.location.mkdir()
        (folder / "train.jsonl").write_text(lines(FIRST))
        (folder / "test.jsonl").write_text(lines(TEST))
        self.data = DataConfig(
            train=str(folder / "train.jsonl"),
            test=str(folder / "test.jsonl"),
            input="text",
            target="label",
        )
        self.store = Store(str(folder / "store"))

    def drop(self, name: str, *rows: tuple[str, str]) -> None:
        (self.location / name).write_text(lines(rows))

    def config(self, **changes) -> NewRowsConfig:
        return NewRowsConfig(**({"location": str(self.location), "data": self.data} | changes))

    def find(self, *heads: DataVersion, base: DataVersion | None = None, **changes) -> NewRows:
        config = self.config(**changes)
        inputs = new_rows.inputs(config, heads, base)
        manifest = compute(new_rows.STAGE, config, inputs, self.store, LaunchConfig(), lambda event: None)
        return NewRows.model_validate(manifest.result)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def texts(found: NewRows) -> list[tuple[str, str]]:
    return [(row.input, row.target) for row in read_examples(found.version.rows)]


def test_the_first_version_is_the_training_rows_and_what_has_arrived(place):
    place.drop("one.jsonl", ("snow?", "weather"))
    found = place.find()
    assert sorted(texts(found)) == sorted([*FIRST, ("snow?", "weather")])
    assert (found.new, found.held_out, found.broken) == (3, 0, [])
    assert found.metrics()["data/train_rows"] == 3


def test_a_location_where_nothing_has_arrived_makes_the_first_version_of_the_training_rows(place):
    (place.location / "notes.md").write_text("read me")
    assert sorted(texts(place.find())) == sorted(FIRST)


def test_rows_come_as_the_users_columns_so_that_a_method_reads_them(place):
    found = place.find()
    data = place.data.model_copy(update={"train": found.version.train.uri})
    assert sorted((row.input, row.target) for _, row in read_located(data, "train")) == sorted(FIRST)


def test_only_rows_that_no_version_has_are_appended_after_those_that_were_there(place):
    first = place.find()
    place.drop("one.jsonl", ("snow?", "weather"), FIRST[0])
    place.drop("two.jsonl", ("next track", "music"), ("snow?", "weather"))
    second = place.find(first.version)
    assert second.new == 2
    assert texts(second)[:2] == texts(first)
    assert set(texts(second)[2:]) == {("snow?", "weather"), ("next track", "music")}
    assert sorted(texts(first)) == sorted(FIRST)  # the version before is still whole


def test_a_rewritten_renamed_or_reordered_file_is_no_news(place):
    rows = [("snow?", "weather"), ("next track", "music")]
    place.drop("one.jsonl", *rows)
    first = place.find()
    place.drop("one.jsonl", *reversed(rows))
    place.drop("copy.jsonl", rows[0])
    csv = "label,text\nmusic,next track\n"
    (place.location / "three.csv.gz").write_bytes(gzip.compress(csv.encode()))
    again = place.find(first.version)
    assert (again.new, again.version.digest) == (0, first.version.digest)


def test_the_order_of_files_and_rows_does_not_change_the_bytes(place, tmp_path):
    rows = [("snow?", "weather"), ("next track", "music"), ("hail?", "weather")]
    first = place.find()
    place.drop("a.jsonl", *rows)
    one = place.find(first.version)
    other = Store(str(tmp_path / "other"))
    (place.location / "a.jsonl").unlink()
    place.drop("z.jsonl", rows[2])
    place.drop("b.jsonl", rows[1], rows[0])
    place.store = other
    two = place.find(first.version)
    assert (one.version.digest, one.version.train.digest) == (two.version.digest, two.version.train.digest)


def test_the_training_rows_are_read_for_the_first_version_only(place):
    first = place.find()
    Path(place.data.train).unlink()
    place.drop("one.jsonl", ("snow?", "weather"))
    assert place.find(first.version).new == 1


def test_rows_that_ask_what_is_held_out_stay_out_whatever_they_answer(place):
    first = place.find()
    place.drop("leak.jsonl", TEST[0], ("sun?", "music"), ("hail?", "weather"))
    found = place.find(first.version)
    assert (found.new, found.held_out) == (1, 2)
    assert not {text for text, _ in texts(found)} & {text for text, _ in TEST}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"text": "hail?", "label": "weather"}\n{"text": "ha', "line 2"),
        ('{"text": "hail?", "label": ""}\n', "column 'label' is empty"),
        ('{"words": "hail?", "label": "weather"}\n', "no column 'text'"),
        ("", "is empty"),
        ('{"text": "hail?", "label": "Weather"}\n', "differ only in case"),
    ],
)
def test_a_broken_file_is_named_and_left_out_whole_or_refused(place, content, reason):
    first = place.find()
    (place.location / "broken.jsonl").write_text(content)
    place.drop("whole.jsonl", ("snow?", "weather"))
    found = place.find(first.version)
    assert [(Path(one.file).name, reason in one.reason) for one in found.broken] == [("broken.jsonl", True)]
    assert (found.new, ("hail?", "weather") in texts(found)) == (1, False)
    with pytest.raises(UserError, match=r"broken\.jsonl") as caught:
        place.find(first.version, broken="refuse")
    assert (caught.value.field, "--broken=skip" in caught.value.mend) == ("location", True)


def test_a_broken_file_is_read_as_soon_as_it_is_whole(place):
    first = place.find()
    (place.location / "one.jsonl").write_text('{"text": "hail?"')
    assert place.find(first.version).new == 0
    place.drop("one.jsonl", ("hail?", "weather"))
    assert place.find(first.version).new == 1


def test_a_row_the_problem_cannot_use_breaks_its_file(place):
    place.data = place.data.model_copy(update={"problem": "numeric"})
    for name, rows in (("train", [("1 + 1?", "2")]), ("test", [("3 + 1?", "4")])):
        Path(getattr(place.data, name)).write_text(lines(rows))
    place.drop("one.jsonl", ("2 + 2?", "four"))
    found = place.find()
    assert "row 1: the answer holds no number" in found.broken[0].reason
    assert texts(found) == [("1 + 1?", "2")]


def test_rows_at_fault_are_left_out_of_their_file_where_the_data_say_so(place):
    place.data = place.data.model_copy(update={"problem": "numeric", "faulty": "drop"})
    for name, rows in (("train", [("1 + 1?", "2"), ("0 + 1?", "")]), ("test", [("3 + 1?", "4"), ("", "1")])):
        Path(getattr(place.data, name)).write_text(lines(rows))
    place.drop("one.jsonl", ("2 + 2?", "four"), ("2 + 3?", "5"), ("2 + 4?", ""))
    found = place.find()
    assert found.broken == []
    assert sorted(texts(found)) == [("1 + 1?", "2"), ("2 + 3?", "5")]
    assert (sum(found.left_out.values()), found.metrics()["data/left_out_rows"]) == (3, 3.0)
    place.data = place.data.model_copy(update={"longest_input": 6})
    place.drop("two.jsonl", ("2 + 10?", "12"), ("2 + 5?", "7"))
    after = place.find(found.version)
    assert (after.new, ("2 + 10?", "12") in texts(after)) == (1, False)
    assert after.left_out["have an input of more than 6 characters"] == 1


def test_two_versions_made_at_once_are_joined_without_losing_a_row(place):
    first = place.find()
    place.drop("one.jsonl", ("snow?", "weather"))
    one = place.find(first.version)
    (place.location / "one.jsonl").unlink()
    place.drop("two.jsonl", ("next track", "music"))
    two = place.find(first.version)
    (place.location / "two.jsonl").unlink()
    joined = place.find(one.version, two.version)
    assert joined.new == 0
    assert set(texts(joined)) == {*FIRST, ("snow?", "weather"), ("next track", "music")}
    assert len(texts(joined)) == 4


def test_rows_that_were_tried_and_left_out_are_no_news(place):
    first = place.find()
    place.drop("poison.jsonl", ("snow?", "music"))
    tried = place.find(first.version)
    place.drop("good.jsonl", ("snow?", "weather"))
    found = place.find(tried.version, base=first.version)
    assert found.new == 1
    assert texts(found) == [*texts(first), ("snow?", "weather")]
    ids = {record["id"] for record in read_records(found.version.seen)}
    assert len(ids) == 4  # the poisoned row is remembered


def test_a_rerun_is_the_same_result_from_the_store(place):
    place.drop("one.jsonl", ("snow?", "weather"))
    found = place.find()
    assert place.find() == found


def test_files_that_change_between_look_and_run_are_not_mixed(place, tmp_path):
    config = place.config()
    inputs = new_rows.inputs(config, [])
    place.drop("late.jsonl", ("hail?", "weather"))
    with pytest.raises(UserError, match="changed while they were read"):
        new_rows.run(config, inputs, tmp_path / "out", lambda event: None)


@pytest.mark.parametrize("location", ["", "nowhere-at-all", "hub:owner/name", "gym:chain_sum?size=3"])
def test_a_location_that_is_none_is_refused(place, location):
    with pytest.raises(UserError) as caught:
        place.find(location=location)
    assert caught.value.field == "location"


def test_generated_tasks_have_no_versions(place):
    place.data = place.data.model_copy(update={"train": "gym:chain_sum?size=3"})
    with pytest.raises(UserError, match="do not arrive"):
        place.find()


def test_a_prefix_of_an_object_store_is_a_location(place):
    with s3_server("incoming") as client:
        client.put_object(Bucket="incoming", Key="day/one.jsonl", Body=lines([("snow?", "weather")]).encode())
        found = place.find(location="s3://incoming/day")
        assert (found.new, ("snow?", "weather") in texts(found)) == (3, True)
        client.put_object(Bucket="incoming", Key="day/two.jsonl", Body=lines([("hail?", "weather")]).encode())
        assert place.find(found.version, location="s3://incoming/day").new == 1


def arrive(tmp_path, test, new, **data):
    """What one new row comes to beside a test row."""
    place = Place(tmp_path)
    for name, row in (("train", {"input": "x", "target": "y", "choices": ["y"]}), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (place.location / "new.jsonl").write_text(json.dumps(new) + "\n")
    place.data = DataConfig(train=place.data.train, test=place.data.test, **data)
    found = place.find()
    return found.new - 1, found.held_out


def test_a_dialogue_that_asks_what_is_held_out_stays_out_whatever_its_reply(tmp_path):
    asked = "\n\nHuman: How do I bake bread?\n\nAssistant: "
    test, new = ({"input": asked + reply, "target": asked + reply} for reply in ("Knead it.", "In an oven."))
    assert arrive(tmp_path, test, new, problem="dialogue") == (0, 1)


def test_the_same_words_over_other_choices_are_another_question(tmp_path):
    test, new = (
        {"input": "Which is true?", "target": choices[0], "choices": choices}
        for choices in (["water is wet", "fire is cold"], ["cats purr", "dogs meow"])
    )
    assert arrive(tmp_path, test, new, problem="multiple_choice", choices="choices") == (1, 0)
