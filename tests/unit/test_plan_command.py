"""`python -m flows plan`: what it prints, that its advice holds, and what it says to mistakes."""

import json
import re
from pathlib import Path

import psutil
import pytest
import torch

from flows.llm2llm import CONFIG as LLM2LLM
from flows.perl import CONFIG as PERL
from flows.rest import CONFIG as REST
from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig
from tasks.plan.command import run_plan
from tasks.plan.memory import CONTEXT, FRAGMENTS, GB, PARTS
from tasks.plan.speed import SPEEDS

ROOT = Path(__file__).parents[2]
CONFIGS = {"llm2llm": LLM2LLM, "perl": PERL, "rest": REST}
BIG = "deployments/configs/perl-hh.yaml"


@pytest.fixture
def plan(capsys, monkeypatch):
    """Runs the command; gives its JSON line, and the text of its table."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        assert run_plan(CONFIGS, CONFIGS.__getitem__, arguments) == 0
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        return json.loads(line), captured.err

    return run


def stages(found):
    return {stage["stage"]: stage for stage in found["stages"]}


def test_the_parts_are_those_of_one_base_with_three_adapters(plan):
    found, text = plan("perl", "--config", BIG)
    assert found["parameters"] == 8_030_261_248
    ppo = stages(found)["ppo"]
    # 32 layers, rank 16, attention: (4096 + 4096) twice, (4096 + 1024) twice
    adapter = 32 * 16 * (2 * 8192 + 2 * 5120)
    assert ppo["weights"] == 2 * 8_030_261_248
    assert ppo["adapters"] == 3 * 4 * adapter  # policy, value function and reward model, in float32
    assert ppo["optimizer"] == 2 * 2 * 4 * adapter  # two moments of two that are trained
    assert ppo["bytes"] == sum(ppo[part] for part in PARTS)
    assert ppo["bytes_of_gpu"] == pytest.approx(ppo["bytes"] * (1 + FRAGMENTS) + CONTEXT, abs=1)
    assert "8,030,261,248 parameters" in text
    verdicts = [
        line for line in text.splitlines() if " GB  " in line and " x " not in line and "GB are" not in line
    ]
    assert [line.split()[0] for line in verdicts] == ["24", "40", "80", "141"]


def test_four_models_hold_three_sets_of_weights_and_train_one_of_them_whole(plan):
    apart = plan("perl", "--config", BIG)[0]["separate_models"]
    body = 8_030_261_248 - 128_256 * 4096
    assert apart["weights"] == 2 * 8_030_261_248 + (4 + 2) * body  # what is trained whole is float32
    assert apart["gradients"] + apart["optimizer"] >= 3 * 4 * body
    whole = plan("perl", "--config", BIG, "--roles.method=full")[0]["separate_models"]
    assert whole["weights"] == apart["weights"] + 4 * 8_030_261_248  # float32, and a reference


def test_advice_for_a_device_that_is_too_small_is_enough(plan):
    arguments = ["perl", "--config", BIG, "--training.batch_size=64", "--ppo.micro_batch_size=64"]
    arguments += ["--device=40", "--prompt_tokens=512"]
    (verdict,) = plan(*arguments)[0]["devices"]
    assert verdict["too_large"] == ["fine-tune", "ppo"]
    assert not verdict["hopeless"]
    found = plan(*arguments, *verdict["flags"])[0]
    assert found["devices"][0]["fits"], (verdict["flags"], found)
    # Every piece of advice is needed: without it the device is too small again.
    for left_out in verdict["flags"]:
        if "gradient_accumulation" not in left_out:  # it keeps the result as it was
            rest = [flag for flag in verdict["flags"] if flag != left_out]
            assert not plan(*arguments, *rest)[0]["devices"][0]["fits"], left_out


def test_advice_is_nothing_that_the_flow_refuses(plan):
    # By ZeRO-3 on eight devices: no 4-bit weights, and no fewer rows than devices.
    shared = ["llm2llm", "--config=deployments/configs/llm2llm-gsm8k.yaml", "--student.model=llama-3.1-70b"]
    shared += ["--training.batch_size=32", "--evaluation.engine.engine=openai"]
    (verdict,) = plan(*shared, "--device=16")[0]["devices"]
    assert verdict["hopeless"] == ["fine-tune"]
    (verdict,) = plan(*shared, "--device=40")[0]["devices"]
    assert "--training.method=lora" in verdict["flags"]
    # Shared plainly it is 4-bit weights that fit, with rows for each of the eight still.
    (verdict,) = plan(*shared, "--device=48", "--training.deepspeed=")[0]["devices"]
    assert "--training.method=qlora" in verdict["flags"]
    rows = [int(flag.partition("batch_size=")[2]) for flag in verdict["flags"] if "batch_size=" in flag]
    assert all(few >= 8 for few in rows)


def test_no_advice_for_a_model_that_is_too_large_for_the_device(plan):
    arguments = ["--roles.adapter.modules=all-linear", "--reward_model.adapter.modules=all-linear"]
    arguments += ["--model=falcon-180b", "--device=80", "--prompt_tokens=256"]
    found, text = plan("perl", "--config", BIG, *arguments)
    (verdict,) = found["devices"]
    assert "ppo" in verdict["hopeless"]
    assert "several devices" in text


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ("--training.gradient_checkpointing=false", "fine-tune"),
        ("--training.batch_size=16", "fine-tune"),
        ("--training.method=full", "fine-tune"),
        ("--reward_model.batch_size=16", "reward model"),
        ("--roles.value=model", "ppo"),
        ("--ppo.micro_batch_size=32", "ppo"),
        ("--evaluation.engine.batch_size=128", "evaluate"),
    ],
)
def test_what_takes_more_memory_is_planned_with_more(plan, changes, part):
    few = ["perl", "--config", BIG, "--prompt_tokens=256"]
    before, after = (stages(plan(*few, *more)[0])[part]["bytes"] for more in ([], [changes]))
    assert after > before * 1.05


def test_several_models_are_compared_in_a_table(plan):
    found, text = plan("perl", "--config", BIG, "--model=smollm2-135m,llama-3.1-8b", "--prompt_tokens=256")
    assert [one["model"] for one in found["plans"]] == ["smollm2-135m", "llama-3.1-8b"]
    lines = text.splitlines()
    assert lines[0].startswith("| model | fine-tune | merge | reward model |")
    assert len(lines) == 4
    ppo = stages(found["plans"][1])["ppo"]["bytes_of_gpu"] / GB
    assert f" {ppo:.1f} |" in lines[3]


def test_every_flow_has_its_stages(plan):
    found, _ = plan("llm2llm", "--config=deployments/configs/demo.yaml", "--json")
    assert [stage["stage"] for stage in found["stages"]] == ["fine-tune", "evaluate", "teacher"]
    found, text = plan("rest", "--config=deployments/configs/rest-hh.yaml", "--json")
    names = ["fine-tune", "reward model", "reward of answers", "evaluate", "grow"]
    assert [stage["stage"] for stage in found["stages"]] == names
    assert not text
    assert found["separate_models"] is None
    found, text = plan("perl", "--config=deployments/configs/perl-hh-cpu.yaml", "--device=cpu")
    assert stages(found)["ppo"]["weights"] == 4 * 134_515_008
    assert found["devices"] == []


@pytest.mark.parametrize("path", [BIG, "deployments/configs/perl-hh-cpu.yaml"])
def test_the_table_in_a_config_is_what_its_command_prints(plan, path):
    lines = [line[2:] for line in (ROOT / path).read_text(encoding="utf-8").splitlines() if line[:2] == "# "]
    first, last = (
        next(at for at, line in enumerate(lines) if line.startswith(words)) for words in ("GB  ", "ppo, four")
    )
    command = re.search(r"`python -m flows plan (.+?)`", " ".join(lines))
    assert command
    printed = plan(*command[1].split())[1].splitlines()
    assert lines[first : last + 1] == [line.rstrip() for line in printed[1 : last - first + 2]]


def test_shards_of_zero_take_their_share(plan):
    arguments = ["llm2llm", "--config=deployments/configs/llm2llm-gsm8k.yaml", "--json"]
    shared = stages(plan(*arguments)[0])["fine-tune"]
    assert shared["optimizer"] == 12 * 8_030_261_248 / 8  # float32 weights and two moments, on eight devices
    alone = stages(plan(*arguments, "--training.deepspeed=")[0])["fine-tune"]
    assert alone["optimizer"] == 2 * 4 * 8_030_261_248
    assert alone["gradients"] == 2 * 4 * 8_030_261_248  # with the buckets that DDP sends


def test_what_is_offloaded_stands_beside_the_devices_that_it_leaves(plan):
    arguments = ["llm2llm", "--config=deployments/configs/llm2llm-gsm8k.yaml", "--rows=700"]
    shared, text = plan(*arguments)
    assert stages(shared)["fine-tune"]["host"] == 0
    assert "main memory" not in "".join(text.splitlines()[:6])
    arguments += ["--training.deepspeed=zero3-offload"]
    away, text = plan(*arguments)
    # Weights in 16 bits, and in float32 the optimizer's copies, two moments and gradients, on eight devices.
    assert stages(away)["fine-tune"]["host"] == pytest.approx(18 * 8_030_261_248 / 8, abs=1)
    assert "fine-tune offloads 18.1 GB for each device, in all 144.5 GB of main memory" in text
    here = stages(plan(*arguments, "--device=cpu", "--training.precision=bfloat16")[0])["fine-tune"]
    assert here["host"] == 0
    assert here["weights"] + here["optimizer"] == pytest.approx(
        stages(away)["fine-tune"]["weights"] + 18 * 8_030_261_248 / 8, abs=1
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["perle"], "there is no flow perle"),
        (["perl", "--device=tpu"], "'tpu' is no device"),
        (["perl", "--device=-3"], "no device"),
        (["perl", "--prompt_tokens=many"], "no number of tokens"),
        (["perl", "--model="], "no model is named"),
        (["perl", "--rows=many"], "'many' is no number"),
        (["perl", "--kept=2"], "'2' is no share"),
        (["perl", "--model=llama-9"], "there is no model llama-9"),
        (["perl", "--prompt_tokens=9000"], "context of smollm2-135m, 8192"),
        (["perl", "--ppo.stepps=3"], "did you mean --ppo.steps"),
        (["perl", "--config", "nothing.yaml"], "there is no file nothing.yaml"),
        (["perl", "--roles.adapter.modules=wq"], "no module named wq"),
    ],
)
def test_a_mistake_is_answered_before_anything_is_loaded(arguments, words):
    with pytest.raises(UserError, match=words):
        run_plan(CONFIGS, CONFIGS.__getitem__, arguments)


def test_hours_and_dollars_stand_beside_every_device(plan):
    found, text = plan(
        "llm2llm", "--config=deployments/configs/llm2llm-gsm8k.yaml", "--rows=7000", "--failing=0.1"
    )
    devices = [one["device"] for one in found["estimates"]]
    assert devices == ["L4", "A100 40 GB", "H100", "H200"]
    assert all(f"{device} " in text for device in devices)
    slow, *_, fast = (one["total_hours"] for one in found["estimates"])
    assert slow > fast > 0
    assert found["stored"]["fine-tune"]["model"] == 2 * 8_030_261_248
    assert found["traffic"]["mirrored"] > 0
    assert f"{found['traffic']['total'] / GB:,.2f} GB with one machine" in text
    fewer = plan(
        "llm2llm", "--config=deployments/configs/llm2llm-gsm8k.yaml", "--rows=700", "--failing=0.1", "--json"
    )[0]
    assert fewer["work"]["fine-tune"] == found["work"]["fine-tune"]  # 74 seed rows stand in the configuration


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what a machine without a GPU is taken for")
def test_calibrating_without_a_gpu_plans_float32_in_main_memory(plan, monkeypatch):
    measured = []

    def speed(shape, number):
        measured.append(number)
        return SPEEDS[80.0]

    monkeypatch.setattr("tasks.plan.command.calibrated", speed)
    arguments = ["llm2llm", "--config=deployments/configs/demo.yaml", "--device=80", "--calibrate"]
    rented, here = plan(*arguments)[0]["estimates"]
    assert measured == [4]
    assert here["gigabytes"] == pytest.approx(psutil.virtual_memory().total / GB)
    assert here["layout"]["devices"] == 1  # its processes would have no memory of their own
    # The same speed, but twice the bytes of a weight to wait for where tokens are written.
    assert here["hours"]["teacher"] > 1.2 * rented["hours"]["teacher"]


def test_a_flow_that_trains_nothing_itself_has_no_plan():
    class Other(FlowConfig):
        """Settings of a flow that only calls others."""

    with pytest.raises(UserError, match="nothing to plan"):
        run_plan(["other"], lambda name: Other, ["other"])


def test_the_flow_is_found_by_the_only_one_that_takes_the_configuration(plan, tmp_path):
    assert plan(f"--config={BIG}", "--device=80") == plan("perl", f"--config={BIG}", "--device=80")
    assert plan("--device=24", "--teacher.engine.engine=openai", "--rows=50")[0]["flow"] == "llm2llm"
    both = tmp_path / "both.yaml"
    both.write_text("policy:\n  model: smollm2-135m\n")
    with pytest.raises(UserError, match="has to be named") as caught:
        run_plan(CONFIGS, CONFIGS.__getitem__, ["--config", str(both)])
    assert caught.value.mend.endswith("this fits perl and rest")
    with pytest.raises(UserError, match="has to be named") as caught:
        run_plan(CONFIGS, CONFIGS.__getitem__, [f"--config={BIG}", "--ppo.stepps=3"])
    assert caught.value.mend.endswith("flows are: llm2llm, perl, rest")
    with pytest.raises(UserError, match=r"there is no file nothing\.yaml"):
        run_plan(CONFIGS, CONFIGS.__getitem__, ["--config", "nothing.yaml"])


def test_without_a_flow_it_says_how_it_is_called(capsys):
    assert run_plan(CONFIGS, CONFIGS.__getitem__, []) == 0
    assert "--prompt_tokens" in capsys.readouterr().out


def test_the_config_for_one_gpu_says_what_the_command_says(plan):
    _, text = plan("perl", "--config", BIG)
    written = (ROOT / BIG).read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.strip()]
    assert all(f"# {line}".rstrip() in written for line in table[1:8]), "\n".join(
        f"# {line}" for line in table
    )
