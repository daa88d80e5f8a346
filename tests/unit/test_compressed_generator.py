"""A generator behind a compressor: which messages get shorter, and what is counted."""

import shutil

import pytest

from tasks.augment.teacher import TeacherConfig, locate_teacher
from tasks.base_model import ModelConfig
from tasks.compress.weights import located
from tasks.core.compression.config import CompressorConfig
from tasks.core.config import identity
from tasks.core.errors import UserError
from tasks.core.generators.base import Sampling
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig, load_generator
from tasks.evaluate import EvaluationConfig
from tasks.grow.config import GrowConfig
from tasks.grow.config import check as check_grow
from tasks.instruct.data import InstructDataConfig
from tasks.instruct.training import StudentConfig, check_student
from tasks.sft.config import TrainingConfig
from tasks.student import check_evaluation
from tests.s3_server import s3_server
from tests.scripted_server import ScriptedServer
from tests.tiny_encoder import TEXTS, build_tiny_encoder

LONG = " ".join(TEXTS * 2)
PROMPT = [
    {"role": "system", "content": f"System. {LONG}"},
    {"role": "user", "content": LONG},
    {"role": "assistant", "content": "Short one."},
    {"role": "user", "content": f"Last. {LONG}"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_encoder(tmp_path_factory.mktemp("compressor") / "bert")


def engine(folder, url="http://127.0.0.1:1/v1", **fields):
    compressor = CompressorConfig(model=str(folder), rate=0.5, **fields)
    return EngineConfig(
        engine="openai", endpoint=EndpointConfig(url=url, model="scripted"), compressor=compressor
    )


def sent(folder, **fields):
    with ScriptedServer() as server:
        generator = load_generator(located(engine(folder, server.url, **fields), "x"), None, field="x")
        generator.generate([PROMPT, PROMPT], Sampling())
        return [message["content"] for message in server.requests[0].json["messages"]], generator.usage


def test_long_messages_but_the_systems_and_the_last_get_shorter(folder):
    contents, usage = sent(folder)
    assert [contents[place] for place in (0, 2, 3)] == [PROMPT[place]["content"] for place in (0, 2, 3)]
    assert 0.3 < len(contents[1]) / len(LONG) < 0.7
    assert usage.saved_tokens > 0
    assert usage.calls == 2
    once = sent(folder, roles=("user", "assistant", "system"), last=True)
    assert len(once[0][3]) < 0.7 * len(PROMPT[3]["content"])
    assert once[1].saved_tokens > 2 * usage.saved_tokens


def test_nothing_is_sent_empty(folder):
    with ScriptedServer() as server:
        config = located(engine(folder, server.url), "x")
        config = config.model_copy(update={"compressor": config.compressor.model_copy(update={"rate": 0.0})})
        load_generator(config, None, field="x").generate([PROMPT], Sampling())
        assert server.requests[0].json["messages"] == PROMPT


def test_a_cache_key_hangs_on_the_compressors_files_and_not_on_their_place(folder, tmp_path):
    elsewhere = build_tiny_encoder(tmp_path / "same")
    other = build_tiny_encoder(tmp_path / "other", seed=1)
    keys = [identity(located(engine(place), "x")) for place in (folder, elsewhere, other)]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_a_compressor_in_an_object_store_is_fetched_by_every_machine(folder, tmp_path, monkeypatch):
    with s3_server("models") as client, ScriptedServer() as server:
        for path in folder.iterdir():
            client.upload_file(str(path), "models", f"bert/{path.name}")
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "first"))
        config = located(engine("s3://models/bert", server.url), "x")
        assert identity(config) == identity(located(engine(folder, server.url), "x"))
        shutil.rmtree(tmp_path / "first")
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "second"))  # a Ray worker's
        load_generator(config, None, field="x").generate([PROMPT], Sampling())
        assert len(server.requests[0].json["messages"][1]["content"]) < 0.7 * len(LONG)


def test_what_is_no_compressor_is_refused_before_anything_is_loaded(tmp_path):
    encoder = build_tiny_encoder(tmp_path / "encoder", head=False)
    with pytest.raises(UserError, match=r"teacher\.engine\.compressor\.model: .* no compressor"):
        located(engine(encoder), "teacher.engine")
    with pytest.raises(UserError, match="there is no"):
        located(engine(tmp_path / "missing"), "teacher.engine")


@pytest.mark.parametrize(
    ("check", "field"),
    [
        (lambda engine: check_evaluation(EvaluationConfig(engine=engine)), "evaluation.engine.engine"),
        (lambda engine: locate_teacher(TeacherConfig(engine=engine), "answers"), "answers.engine.engine"),
        (lambda engine: GrowConfig(engine=engine).drawing(), "grow.engine.engine"),
    ],
)
def test_vllm_that_is_not_installed_is_refused_before_anything_is_loaded(check, field, monkeypatch):
    monkeypatch.setattr("tasks.core.generators.load.find_spec", lambda name: None)
    with pytest.raises(UserError, match="vLLM is not installed") as caught:
        check(EngineConfig(engine="vllm"))
    assert caught.value.field == field
    check_evaluation(EvaluationConfig())


@pytest.mark.parametrize(
    ("check", "field"),
    [
        (lambda engine: check_evaluation(EvaluationConfig(engine=engine)), "evaluation.engine.engine"),
        (
            lambda engine: check_grow(
                GrowConfig(engine=engine), TrainingConfig(), "exact_match", keep_cut=False
            ),
            "grow.engine.engine",
        ),
    ],
)
def test_a_server_does_not_stand_in_for_a_model_that_is_trained(check, field):
    with pytest.raises(UserError, match="not with the one that is trained here") as caught:
        check(EngineConfig(engine="openai"))
    assert caught.value.field == field


def test_the_student_of_new_rows_names_its_own_engine(tiny_model, monkeypatch):
    monkeypatch.setattr("tasks.core.generators.load.find_spec", lambda name: None)
    evaluation = EvaluationConfig(engine=EngineConfig(engine="vllm"))
    student = StudentConfig(on=True, model=ModelConfig(model=str(tiny_model)), evaluation=evaluation)
    with pytest.raises(UserError, match="vLLM is not installed") as caught:
        check_student(student, InstructDataConfig(test="test.jsonl", test_target="response"))
    assert caught.value.field == "student.evaluation.engine.engine"
