"""The rounds of writing, with a teacher behind a real server that answers as a test scripts it."""

import hashlib
import json

import pytest

from tasks.augment.teacher import Teacher
from tasks.core.examples import make_example, read_examples, read_records, write_rows
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.generators.openai_compatible import EndpointFailed
from tasks.instruct import stage
from tasks.instruct.config import BudgetConfig, MixConfig, WritingConfig
from tasks.instruct.data import InstructData
from tasks.instruct.stage import WritingInputs
from tests.flows.teacher import WORDS
from tests.scripted_server import ScriptedServer, completion, refusal

SEEDS = [
    make_example(f"Please describe {WORDS[number]} to a child.", f"{WORDS[number]}!") for number in range(10)
]
TEXTS = [make_example(f"A text about {word} that somebody wrote.", "") for word in WORDS]
TEST = [make_example("Explain why amber is yellow at all.", "")]
ONLY = {
    name: MixConfig(self_instruct=0, evol=0).model_copy(update={name: 1.0}) for name in MixConfig.model_fields
}


def sentence(words: str) -> str:
    """Six words that hang on the prompt alone."""
    digest = hashlib.sha256(words.encode()).digest()
    return " ".join(f"{WORDS[byte % len(WORDS)]}{byte % 7}" for byte in digest[:6])


def write(request):
    """A good teacher: tasks, instructions, answers, and the best mark for texts with an `e` in their subject."""
    prompt = request["messages"][-1]["content"]
    if prompt.startswith("These are tasks"):
        lines = [f"{number}. Write about {sentence(prompt + str(number))}." for number in range(9, 13)]
        return completion("\n".join(lines))
    if prompt.startswith("How good"):
        return completion("5" if "e" in prompt.partition("A text about ")[2].split()[0] else "2, sadly")
    if prompt.startswith(("Rewrite", "Write a new", "Say this", "An assistant")):
        return completion(f"Write about {sentence(prompt)}.")
    return completion(f"An answer about {sentence(prompt)}.")


def run(folder, server, seeds=SEEDS, reports=None, **settings):
    rows = {"seeds": seeds, "texts": TEXTS, "test": TEST}
    endpoint = EndpointConfig(url=server.url, model="scripted", attempts=2, backoff_s=0.01, concurrency=4)
    inputs = WritingInputs(
        teacher=Teacher(engine=EngineConfig(engine="openai", endpoint=endpoint)),
        data=InstructData(
            **{name: write_rows(folder / f"{name}.jsonl", part) for name, part in rows.items()}
        ),
    )
    config = WritingConfig(**{"rows": 12, "per_round": 4} | settings)
    return stage.run(config, inputs, folder, (reports if reports is not None else []).append)


def test_rows_come_with_operation_parents_and_prompt_and_as_chats(tmp_path):
    reports = []
    with ScriptedServer(write) as server:
        result = run(tmp_path, server, reports=reports)
        asked = {request.prompt for request in server.requests}
    rows = read_examples(result.rows)
    assert (len(rows), result.stopped, len({row.input for row in rows})) == (12, "", 12)
    known = {row.id for row in [*SEEDS, *rows]}
    for row in rows:
        assert row.origin == "synthetic"
        assert row.facts["prompt"] in asked
        assert {*row.facts["parents"]} <= known
        assert (row.parent is None) == (row.facts["operation"] == "self_instruct")
        assert row.target == f"An answer about {sentence(row.input)}."
    assert {row.facts["operation"].partition("/")[0] for row in rows} == {"self_instruct", "evol"}
    chats = list(read_records(result.chats))
    assert [chat["messages"] for chat in chats] == [
        [{"role": "user", "content": row.input}, {"role": "assistant", "content": row.target}] for row in rows
    ]
    assert sum(one.kept for one in result.operations) == 12
    assert result.usage.calls == len(server.requests)
    assert reports[-1]["progress"] == [12, 12]


def test_texts_get_their_instruction_and_those_with_a_low_mark_go(tmp_path):
    with ScriptedServer(write) as server:
        result = run(tmp_path, server, rows=5, mix=ONLY["backtranslation"])
    rows = read_examples(result.rows)
    assert {row.target for row in rows} <= {text.input for text in TEXTS}
    assert all("e" in row.target.split()[3] for row in rows)
    assert {row.facts["mark"] for row in rows} == {5}
    [figures] = result.operations
    assert figures.rejected["low mark"] > 0


def test_a_teacher_that_copies_what_it_is_shown_brings_nothing_and_the_writing_ends(tmp_path):
    def copy(request):
        prompt = request["messages"][-1]["content"]
        shown = [line for line in prompt.splitlines() if line[:1].isdigit() and "describe" in line]
        return completion("\n".join(shown) or prompt.rpartition("Instruction: ")[2])

    with ScriptedServer(copy) as server:
        result = run(tmp_path, server, patience=3)
    assert (result.rows.rows, result.stopped) == (0, "nothing was kept of 3 rounds in a row")
    rejected = {one.operation: one.rejected for one in result.operations}
    assert set(rejected["self_instruct"]) == {"duplicate"}
    assert {"failed evolution"} == {
        reason for name, one in rejected.items() if name != "self_instruct" for reason in one
    }


def test_seeds_that_are_all_alike_are_one_task_and_still_something_to_begin_with(tmp_path):
    alike = [make_example("Please describe amber to a child.", "Amber!")]
    with ScriptedServer(write) as server:
        result = run(tmp_path, server, seeds=alike, rows=3)
    assert result.rows.rows == 3


@pytest.mark.parametrize(
    ("budget", "words", "most"),
    [({"calls": 1}, "1 calls", 0), ({"calls": 9}, "9 calls", 8), ({"tokens": 60}, "60 tokens", 12)],
)
def test_a_budget_ends_the_writing_cleanly(tmp_path, budget, words, most):
    with ScriptedServer(write) as server:  # every call has 5 tokens
        result = run(tmp_path, server, budget=BudgetConfig(**budget), mix=ONLY["evol"])
        calls = len(server.requests)
    assert result.stopped == f"the budget of {words} is used up"
    assert calls <= budget.get("calls", 99)
    assert result.usage.prompt_tokens + result.usage.completion_tokens <= budget.get("tokens", 999)
    assert result.rows.rows <= most
    assert (result.rows.rows > 0) == (most > 0)  # what was written is answered, too


def test_money_is_that_of_the_tokens(tmp_path):
    prices = {"input_price": 2.0, "output_price": 10.0}
    with ScriptedServer(write) as server:
        result = run(tmp_path, server, rows=4, budget=BudgetConfig(**prices))
    calls = result.usage.calls
    assert result.money == pytest.approx(calls * (3 * 2 + 2 * 10) / 1e6)


def test_a_round_that_ended_before_the_server_did_is_not_asked_again(tmp_path):
    down = [False]

    def script(request):
        return refusal(503, "gone") if down[0] else write(request)

    class Watching(list):
        @staticmethod
        def append(event):
            down[0] |= event["progress"][0] >= 4

    with ScriptedServer(script) as server:
        with pytest.raises(EndpointFailed, match="gone"):
            run(tmp_path / "cut", server, reports=Watching())
        finished = sorted(path.name for path in (tmp_path / "cut" / "rounds").iterdir())
        assert finished == [f"round-{number}.json" for number in range(1, len(finished) + 1)]
        kept = [
            len(json.loads((tmp_path / "cut" / "rounds" / name).read_text())["kept"]) for name in finished
        ]
        assert sum(kept) >= 4
        down[0] = False
        resumed = run(tmp_path / "cut", server)
    with ScriptedServer(write) as server:
        undisturbed = run(tmp_path / "whole", server)
    assert read_examples(resumed.rows) == read_examples(undisturbed.rows)
    assert resumed.operations == undisturbed.operations
    assert resumed.usage.calls == undisturbed.usage.calls
