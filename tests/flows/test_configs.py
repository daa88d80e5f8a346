"""Every configuration that comes along fits its flow; the one for GPUs and a hosted teacher runs with tiny ones."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from flows.__main__ import main
from flows.perl import CONFIG as PERL
from tasks.core.command_line import read_config
from tasks.data import preparing
from tasks.reward_model import preferences
from tests.flows.teacher import write_sums
from tests.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "deployments" / "configs").glob("*.yaml"))
COMMAND = re.compile(r"^# (?:python -m flows (?P<flow>[\w-]+) --config (?P<path>\S+)|make demo)")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_opens_with_the_command_that_runs_it_and_fits_its_flow(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = COMMAND.match(path.read_text(encoding="utf-8"))
    assert command, f"{path.name} does not open with its command"
    if command["path"]:
        assert ROOT / command["path"] == path
    flow = import_module(f"flows.{(command['flow'] or 'llm2llm').replace('-', '_')}")
    assert isinstance(read_config(flow.CONFIG, "test", [f"--config={path}"]), flow.CONFIG)


@pytest.mark.parametrize("name", ["perl-hh", "perl-hh-cpu"])
def test_transcripts_with_an_empty_reply_and_long_ones_are_left_out_and_told(name, tmp_path, monkeypatch):
    """As in the public set: 4 of 2,000 replies are empty."""
    monkeypatch.chdir(ROOT)
    question = "\n\nHuman: What is {}?\n\nAssistant:"
    sound = [question.format(number) + " A number." for number in range(6)]
    texts = [*sound, question.format(8), question.format("x" * 3000) + " Long."]
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("".join(json.dumps({"chosen": text, "rejected": f"{text} No."}) + "\n" for text in texts))
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps({"chosen": question.format(9) + " Nine."}) + "\n")
    flags = [f"--data.train={rows}", f"--data.test={held_out}", f"--preferences.train={rows}"]
    config = read_config(PERL, "test", [f"--config=deployments/configs/{name}.yaml", *flags])
    chosen = preparing.check(config.data)
    assert {row.input.strip() for row in chosen.train} == {f"Human: What is {number}?" for number in range(6)}
    assert sorted(chosen.left_out.values()) == [1, 1]
    assert preferences.select(config.preferences).left_out["too long"] == 1


def of_the_kubernetes_job() -> list[str]:
    """The arguments of the training in infra/kubernetes/train."""
    jobs = yaml.safe_load_all((ROOT / "infra/kubernetes/train/job.yaml").read_text(encoding="utf-8"))
    job = next(one for one in jobs if one["kind"] == "Job")
    words: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return words


def of_the_slurm_template() -> list[str]:
    """The example in the head of the template, with the sizes that it adds of the allocation which it asks for."""
    text = (ROOT / "infra/slurm/train.sbatch").read_text(encoding="utf-8")
    example = next(line for line in text.splitlines() if line.startswith("# sbatch "))
    asked = dict(re.findall(r"^#SBATCH --(nodes|gpus-per-node)=(\d+)$", text, re.MULTILINE))
    sizes = [f"--launch.nodes={asked['nodes']}", f"--launch.processes={asked['gpus-per-node']}"]
    return [*shlex.split(example)[3:], *sizes]


@pytest.mark.parametrize("words", [of_the_kubernetes_job, of_the_slurm_template])
def test_a_command_for_several_machines_passes_its_flow_s_check(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *flags = words()
    flow = import_module(f"flows.{name}")
    config = read_config(flow.CONFIG, "test", flags)
    flow.check(config)
    assert config.launch.total == 16


def test_the_gsm8k_config_runs_with_a_tiny_student_and_a_scripted_teacher(
    prefect_server, tiny_model, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    for name, numbers in (("train", range(80)), ("test", range(100, 104))):
        lines = (
            json.dumps(
                {"question": f"Ann has {n} nuts and finds 2. How many?", "answer": f"{n} + 2 #### {n + 2}"}
            )
            for n in numbers
        )
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with ScriptedServer(write_sums, models=["gpt-4.1-mini"]) as teacher:
        code = main(
            [
                "llm2llm",
                "--config=deployments/configs/llm2llm-gsm8k.yaml",
                f"--data.train={tmp_path}/train.jsonl",
                f"--data.test={tmp_path}/test.jsonl",
                "--data.seed_rows=6",
                f"--student.model={tiny_model}",
                f"--teacher.engine.endpoint.url={teacher.url}",
                f"--store={tmp_path}/store",
                "--iterations=2",
                "--training.max_steps=2",
                "--training.deepspeed=",
                "--evaluation.max_new_tokens=8",
                "--launch.processes=1",
            ]
        )
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result = json.loads(captured.out.splitlines()[-1])
    first, second = result["iterations"]
    assert (first["data/train_rows"], first["data/wrong"], first["data/kept"]) == (6, 6, 6)
    assert second["data/train_rows"] == 12
    assert result["baselines"]
