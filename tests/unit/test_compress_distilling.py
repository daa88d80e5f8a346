"""Distillation: what a teacher is asked, which of its answers are of use, and what quality control leaves."""

import json

import pytest

from tasks.augment.teacher import Teacher
from tasks.compress import distilling, quality, texts
from tasks.compress.distilling import DistillationConfig, DistillationInputs, read_answer, request
from tasks.compress.quality import QualityConfig, QualityInputs
from tasks.compress.texts import SHARD, TextsConfig
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import read_records, write_rows
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.references import ModelRef
from tests.scripted_server import ScriptedServer, completion
from tests.tiny_encoder import build_tiny_encoder

TEXT = "The meeting of the library board has been moved to Thursday."
ANSWERS = {
    "deletes": ("meeting library board moved Thursday.", "stop"),
    "fences": ("Compressed text: ```meeting moved Thursday```", "stop"),
    "rewrites": ("They rescheduled everything until later this week, folks", "stop"),
    "refuses": ("I'm sorry, but I cannot help you with that", "stop"),
    "explains": (f"{TEXT} I have kept all of it because every word of it matters here.", "stop"),
    "translates": ("Die Sitzung wurde auf Donnerstag verlegt", "stop"),
    "copies": (TEXT, "stop"),
    "says nothing": (" ", "stop"),
    "never ends": ("meeting library", "length"),
}


def silent(event):
    pass


def teacher(url):
    endpoint = EndpointConfig(url=url, model="scripted", attempts=1)
    return Teacher(engine=EngineConfig(engine="openai", endpoint=endpoint))


def rows(*names):
    return [
        {"id": f"{n:016x}", "text": f"{TEXT} {name}", "text_id": n, "held_out": False}
        for n, name in enumerate(names)
    ]


def test_a_chunk_that_two_texts_share_is_on_one_side_only(tmp_path, encoder):
    shared = "The room is open. " * 15
    written = [f"{shared}{'Ask for number'} {n}. " * 4 for n in range(6)]
    chunks = list(read_records(chunked(tmp_path, encoder, written, test_fraction=0.5).chunks))
    assert len({row["text"] for row in chunks}) == len(chunks)


def test_every_kind_of_answer_finds_its_reason(tmp_path):
    def script(asked):
        text = asked["messages"][-1]["content"]
        answer, finish = ANSWERS[text.removeprefix(TEXT).strip()]
        return completion(text if answer == TEXT else answer, finish, tokens=(40, 8))

    with ScriptedServer(script) as server:
        chunks = write_rows(tmp_path / "chunks.jsonl", rows(*ANSWERS))
        inputs = DistillationInputs(teacher=teacher(server.url), chunks=chunks)
        config = DistillationConfig(prompt_price=2.0, completion_price=10.0)
        found = distilling.run(config, inputs, tmp_path / "out", silent)
        messages = server.requests[0].json["messages"]
    reasons = {row["text"].removeprefix(TEXT).strip(): row["reason"] for row in read_records(found.unusable)}
    assert reasons == {
        "rewrites": "rewritten",
        "refuses": "rewritten",
        "explains": "longer",
        "translates": "rewritten",
        "copies": "nothing removed",
        "says nothing": "empty",
        "never ends": "cut off",
    }
    pairs = {row["compressed"]: row for row in read_records(found.pairs)}
    assert pairs["meeting library board moved Thursday."]["labels"] == "010011001011" + "0"
    assert pairs["meeting moved Thursday"]["variation"] == 0
    assert found.usage.calls == 9
    assert found.cost == pytest.approx((9 * 40 * 2 + 9 * 8 * 10) / 1e6)
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]


def test_an_unanswered_chunk_costs_only_itself(tmp_path):
    def script(asked):
        from tests.scripted_server import refusal

        bad = asked["messages"][-1]["content"].endswith("bad")
        return refusal(400, "no") if bad else completion("meeting moved")

    with ScriptedServer(script) as server:
        chunks = write_rows(tmp_path / "chunks.jsonl", rows("good", "bad"))
        inputs = DistillationInputs(teacher=teacher(server.url), chunks=chunks)
        found = distilling.run(DistillationConfig(), inputs, tmp_path, silent)
    assert found.reasons == {"unanswered": 1}
    assert found.pairs.rows == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('"short text"', "short text"),
        ("“short”", "short"),
        ("Here is the compressed text:\nshort", "short"),
        ("```\nshort\n```", "short"),
        ('"', '"'),
        ("it said 'no'", "it said 'no'"),
        ("", ""),
    ],
)
def test_what_surrounds_an_answer_is_no_part_of_it(answer, expected):
    assert read_answer(answer) == expected


def test_worked_exchanges_only_delete():
    long, short = (message["content"] for message in request("x", DistillationConfig())[1:3])
    from tasks.compress.annotating import align
    from tasks.core.compression.words import split_words

    found = align(split_words(long).texts, split_words(short).texts, 150)
    assert (found.variation, found.gap, found.reordered) == (0, 0, 0)


def pair(number, variation=0.0, gap=0.0, held_out=False):
    figures = {"variation": variation, "gap": gap, "reordered": 0.0, "compressed": "a", "labels": "10"}
    return {"id": f"{number}", "text": "a b", "text_id": number, "held_out": held_out} | figures


def judged(tmp_path, pairs, unusable=(), **fields):
    out = tmp_path / "quality"
    out.mkdir()
    inputs = QualityInputs(
        pairs=[write_rows(tmp_path / "pairs.jsonl", pairs)],
        unusable=[write_rows(tmp_path / "unusable.jsonl", unusable)],
    )
    return quality.run(QualityConfig(**fields), inputs, out, silent)


def test_the_worst_by_variation_go_first_then_the_worst_by_gap_of_the_others(tmp_path):
    pairs = [pair(n, variation=n / 100, gap=(20 - n) / 100, held_out=n % 5 == 0) for n in range(20)]
    bad = [pair(99) | {"reason": "rewritten"}]
    found = judged(tmp_path, pairs, bad, variation_percent=10, gap_percent=20)
    dropped = {row["id"]: row["reason"] for row in read_records(found.dropped)}
    # 10 % of 20 is 2: 18 and 19. 20 % of the other 18 is 3.6: 0, 1, 2.
    assert dropped == {"18": "variation", "19": "variation", "99": "rewritten"} | dict.fromkeys(
        "012", "alignment gap"
    )
    assert found.counts == {"kept": 15, "variation": 2, "alignment gap": 3, "rewritten": 1}
    assert [row["id"] for row in read_records(found.test)] == ["5", "10", "15"]
    assert found.kept_share == 0.5


def test_where_all_are_alike_none_is_dropped(tmp_path):
    found = judged(tmp_path, [pair(n, held_out=n == 0) for n in range(10)])
    assert (found.train.rows, found.test.rows, found.dropped.rows) == (9, 1, 0)


def test_a_teacher_of_no_use_is_named_with_its_reasons(tmp_path):
    with pytest.raises(UserError, match="too few are of use: rewritten 2"):
        judged(tmp_path, [], [pair(n) | {"reason": "rewritten"} for n in range(2)])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = build_tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert", head=False)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


def chunked(tmp_path, encoder, rows, **fields):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    config = TextsConfig(train=str(file), **fields)
    return texts.run(config, texts.inputs(config, encoder), tmp_path, silent)


def test_texts_are_cut_at_sentence_ends_and_held_out_whole(tmp_path, encoder):
    written = [" ".join(f"Room {n} opens at {hour}." for hour in range(40)) for n in range(10)]
    found = chunked(tmp_path, encoder, [*written, written[0]], test_fraction=0.2)
    chunks = list(read_records(found.chunks))
    assert found.texts == 10  # equal ones once
    assert len(chunks) > 20
    assert all(row["text"].endswith(".") for row in chunks)
    sides = {(row["text_id"], row["held_out"]) for row in chunks}
    assert sum(held_out for _, held_out in sides) == 2
    assert len(sides) == 10
    assert sum((list(read_records(shard)) for shard in found.shards), []) == chunks  # noqa: RUF017
    assert found.shards[0].rows == SHARD


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (["a"], {}, "1 text with words"),
        ([" ", "\n"], {}, "0 texts with words"),
        (["a b", "c d"], {"column": "body"}, "no column 'body'"),
        (["a b", None], {}, "is no text"),
        (["a b", "\ud800"], {}, "is no text"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(tmp_path, encoder, rows, fields, message):
    with pytest.raises(UserError, match=message):
        chunked(tmp_path, encoder, rows, **fields)
