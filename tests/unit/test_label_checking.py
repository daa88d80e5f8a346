"""A teacher that labels its own rows anew, in LLM2LLM's augmentation against a real server."""

from tasks.core.examples import read_examples, read_records
from tasks.label.checking import LabelCheckConfig
from tasks.label.config import LabellingConfig
from tests.flows.teacher import write_texts
from tests.scripted_server import completion
from tests.unit.test_core_augment import PARENTS, Bench

CHECK = LabelCheckConfig(on=True, labelling=LabellingConfig(batch_size=3, rounds=3), demonstrations=2)


def second_thoughts(request):
    """Rows are written as they are asked for; asked for labels, it gives every text with an `a` in its first word that
    of the first parent, and to others no answer that can be read."""
    asked = request["messages"][-1]["content"]
    if "Answer with" not in asked and asked.startswith("Write"):
        return write_texts(request)
    texts = [line.partition(": ")[2] for line in asked.splitlines() if line.startswith("Input ")] or [asked]
    lines = [
        f"Label for Input {place}: [{PARENTS[0].target if 'a' in text.split()[0] else '?'}] (confident)"
        for place, text in enumerate(texts)
    ]
    return completion("\n".join(lines))


def test_rows_that_their_teacher_labels_otherwise_are_not_kept(tmp_path):
    bench = Bench(tmp_path)
    unchecked = read_examples(bench.augment(write_texts, rows=6, attempts=1).kept)
    bench = Bench(tmp_path / "checked")
    new = bench.augment(second_thoughts, rows=6, attempts=1, labels=CHECK)
    agreed = [row for row in unchecked if row.target == PARENTS[0].target and "a" in row.input.split()[0]]
    assert 0 < len(agreed) < 6
    assert read_examples(new.kept) == agreed
    assert new.counts["relabelled"] == len(unchecked) - len(agreed)
    assert bench.run.labels == ["augment", "check labels", "filter"]
    rejected = [row for row in read_records(new.rejected[0]) if row["reason"] == "relabelled"]
    assert {row["example"]["id"] for row in rejected} == {row.id for row in unchecked} - {
        row.id for row in agreed
    }
    assert {row["detail"] for row in rejected} <= {
        f"labelled {PARENTS[0].target!r}, by 100% of 2 rounds",
        "no readable label in 3 rounds",
    }
    asked = [request.json["messages"] for request in bench.server.requests]
    batches = [messages for messages in asked if messages[-1]["content"].startswith("3 inputs")]
    assert batches
    assert all(messages[1]["content"].startswith("2 inputs") for messages in batches)  # the demonstrations
