"""Tokens, seconds and layouts of a plan, against numbers worked out by hand."""

import inspect
from dataclasses import replace

import pytest

from flows.llm2llm import LLM2LLMConfig
from flows.perl import PERLConfig
from flows.rest import ReSTConfig
from tasks.base_model import ModelConfig
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.plan.accepted import is_accepted
from tasks.plan.estimate import estimate_in, estimates
from tasks.plan.generating import writing
from tasks.plan.known_models import architecture_of
from tasks.plan.layouts import Layout, in_layout, layouts, trainings
from tasks.plan.memory import GB, GPU, Memory, needed
from tasks.plan.remedies import changed
from tasks.plan.speed import SPEEDS, Pass, Speed, seconds
from tasks.plan.stages import plan_stages
from tasks.plan.table import estimate_line
from tasks.plan.work import Amounts, Work, work_of
from tasks.ppo import training_config
from tasks.ppo.sampling import PolicySampler
from tasks.sft.config import check_sharing
from tests.fsdp_on_cpus import write_fsdp_config

WRITTEN = {"ppo": Work(written=3 * 64 * 10)}
AMOUNTS = Amounts(rows=100, test_rows=40, pairs=30, row_tokens=50, failing=0.2, kept=0.25)
SHAPE = architecture_of(ModelConfig(model="smollm2-135m"), field="model")
PARAMETERS = 134_515_008
ONE = Speed(
    "one",
    flops=1e12,
    bandwidth=1e11,
    link=1e9,
    price=3.0,
    training=0.5,
    reading=0.25,
    writing=0.5,
    network=4e8,
)


def large(config: Config, **settings: object) -> Config:
    """The configuration for a model of 70 billion parameters, whose answers come from a server."""
    return changed(config, {"evaluation.engine.engine": "openai", **settings})


def test_llm2llm_trains_on_what_the_teacher_adds_and_once_more_for_equal_steps():
    config = changed(
        LLM2LLMConfig(), {"training.epochs": 2.0, "augment.rows": 3, "augment.max_new_tokens": 70}
    )
    found = work_of(changed(config, {"evaluation.max_new_tokens": 8}), AMOUNTS)
    # 20 of 100 rows fail, 60 rows are added: 100, 160 and 220 rows, and 220 again.
    assert found["fine-tune"] == Work(trained=2 * 50 * (100 + 160 + 220 + 220))
    assert found["evaluate"] == Work(read=3 * 140 * 50, written=3 * 140 * 8)
    assert found["teacher"] == Work(read=2 * 60 * 50, written=2 * 60 * 70)


def test_what_the_configuration_says_wins_over_a_guess():
    config = changed(
        LLM2LLMConfig(), {"data.seed_rows": 7, "data.test_rows": 2, "iterations": 1, "equal_steps": False}
    )
    config = changed(config, {"training.epochs": 1.0, "evaluation.max_new_tokens": 1})
    found = work_of(config, AMOUNTS)
    assert found["fine-tune"].trained == 7 * 50
    assert found["evaluate"].written == 9


def test_rest_samples_every_prompt_and_trains_a_step_per_level():
    settings = {"grow.samples": 8, "grow.max_new_tokens": 10, "improve.levels": (0.5, 0.9), "iterations": 3}
    config = changed(ReSTConfig(), settings | {"training.epochs": 1.0, "warm_start_epochs": 4.0})
    found = work_of(changed(config, {"evaluation.max_new_tokens": 10}), AMOUNTS)
    # A quarter of 800 samples is kept, beside the 100 rows of the data; 4 passes of the warm start; equal steps.
    assert found["fine-tune"].trained == 50 * (6 * 300 + 400 + 300)
    assert found["grow"] == Work(read=3 * 800 * 50, written=3 * 800 * 10)
    assert found["evaluate"].written == 7 * 40 * 10


def test_ppo_reads_a_response_three_times_and_trains_two_networks():
    ppo = {"ppo.steps": 5, "ppo.batch_size": 16, "ppo.max_new_tokens": 30, "ppo.epochs": 4}
    found = work_of(changed(PERLConfig(), ppo), AMOUNTS)["ppo"]
    assert found == Work(trained=80 * 80 * 4 * 2, read=80 * 80 * 3, written=80 * 30)
    trunk = work_of(changed(PERLConfig(), ppo | {"roles.value": "trunk"}), AMOUNTS)["ppo"]
    assert trunk.trained == 80 * 80 * 4


@pytest.mark.parametrize(
    ("work", "how", "expected"),
    [
        # 4 per parameter and token at half of 10^12; 6 with all weights, 8 with recomputed activations.
        (Work(trained=1000), Pass(False, False, 1, 2, 1), 4 * PARAMETERS * 1000 / 5e11),
        (Work(trained=1000), Pass(True, True, 1, 2, 1), 8 * PARAMETERS * 1000 / 5e11),
        # Two devices have twice the speed, less a tenth.
        (Work(trained=1000), Pass(False, False, 1, 2, 2), 4 * PARAMETERS * 1000 / (2 * 0.9 * 5e11)),
        (Work(read=1000), Pass(False, False, 1, 2, 1), 2 * PARAMETERS * 1000 / 2.5e11),
        # What PPO reads and writes each does by itself, two devices half of it.
        (Work(read=1000), Pass(False, False, 1, 2, 2), 2 * PARAMETERS * 500 / 2.5e11),
        (Work(written=1000), Pass(False, False, 2, 2, 2), 250 * 2 * PARAMETERS / 5e10),
        # A step reads all weights, or computes for 400 rows, whichever takes longer.
        (Work(written=1000), Pass(False, False, 2, 2, 1), 500 * 2 * PARAMETERS / 5e10),
        (Work(written=1000), Pass(False, False, 400, 2, 1), 2.5 * 2 * PARAMETERS * 400 / 2.5e11),
        # ZeRO-3: for every batch of 500 tokens the weights come twice.
        (
            Work(trained=1000),
            Pass(False, False, 1, 2, 2, batch_tokens=500, gathered=True),
            4 * PARAMETERS * 1000 / (2 * 0.9 * 5e11) + 2 * 2 * 2 * PARAMETERS / 1e9,
        ),
        (
            Work(trained=1000),
            Pass(False, False, 1, 2, 2, batch_tokens=500, gathered=True, from_host=True),
            4 * PARAMETERS * 1000 / (2 * 0.9 * 5e11) + 4 * 2 * PARAMETERS * (1 / 1e9 + 1 / (2 * 25e9)),
        ),
        # Over several machines they come by the slower of two ways.
        (
            Work(trained=1000),
            Pass(False, False, 1, 2, 16, batch_tokens=500, gathered=True, machines=2),
            4 * PARAMETERS * 1000 / (16 * 0.9 * 5e11) + 2 * 2 * 2 * PARAMETERS / 4e8,
        ),
    ],
)
def test_seconds_are_arithmetic_over_speed(work, how, expected):
    assert seconds(SHAPE, work, how, ONE) == pytest.approx(expected)


def test_a_layout_holds_every_training_and_fewer_devices_do_not():
    config = large(LLM2LLMConfig(), **{"student.model": "llama-3.1-70b", "training.batch_size": 32})
    found = layouts(config, GPU, 80.0, prompt=1024)
    assert found
    assert all(one.deepspeed.startswith("zero3") for one in found)  # 141 GB of weights, whole or in parts
    for one in found:
        assert fits(config, one)
    plain = [one for one in found if one.deepspeed == "zero3"]
    assert not fits(config, Layout(plain[0].devices // 2, "zero3"))


def fits(config: Config, layout: Layout) -> bool:
    machine = replace(GPU, processes=layout.devices)
    stages = trainings(plan_stages(in_layout(config, layout), machine, prompt=1024))
    return all(needed(stage.memory.total) <= 80 * GB for stage in stages)


def test_no_more_devices_than_rows_of_a_batch():
    config = large(LLM2LLMConfig(), **{"training.batch_size": 4})
    assert {one.devices for one in layouts(config, GPU, 80.0, prompt=512)} == {1, 2, 4}


QLORA = {"training.method": "qlora", "student.model": "falcon-180b", "training.gradient_checkpointing": True}
FULL = {
    "policy.model": "llama-3.1-8b",
    "training.method": "full",
    "reward_model.method": "full",
    "roles.method": "full",
}


def test_four_bit_weights_are_recommended_without_deepspeed_which_the_flow_refuses():
    config = large(LLM2LLMConfig(), **QLORA)
    found = layouts(config, GPU, 141.0, prompt=512)
    assert found
    assert {one.deepspeed for one in found} == {""}
    for one in found:
        check_sharing(in_layout(config, one).training, one.devices, field="training")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        FULL,
        {"roles.method": "qlora", "training.batch_size": 32},
        {"roles.value": "model"},
        {"ppo.minibatch_size": 12, "ppo.batch_size": 60},
        {"ppo.algorithm": "rloo"},
    ],
)
def test_every_layout_of_ppo_that_is_recommended_is_one_that_the_flow_takes(changes):
    config = large(PERLConfig(), **{"training.batch_size": 64, "reward_model.batch_size": 64} | changes)
    config = changed(config, {"ppo.max_new_tokens": 32})
    found = layouts(config, GPU, 2000.0, prompt=64)  # all of them fit
    assert len(found) > 2
    for one in found:
        shared = in_layout(config, one)
        for part in ("training", "reward_model"):
            check_sharing(getattr(shared, part), one.devices, field=part)
        if changes.get("roles.method") != "qlora":  # which needs a library that may be missing here
            training_config.check(shared.policy_training(), processes=one.devices)
        assert not (changes and one.deepspeed) or "ppo.minibatch_size" in changes


def test_a_mistake_that_no_layout_mends_is_told_as_the_flow_tells_it():
    config = large(PERLConfig(), **{"ppo.algorithm": "rloo", "group.responses": 7})
    with pytest.raises(UserError, match="7 responses to each prompt"):
        layouts(config, GPU, 80.0, prompt=64)


@pytest.mark.parametrize(
    ("devices", "flags"),
    [
        (1, []),
        (4, ["--launch.processes=4"]),
        (8, ["--launch.processes=8"]),
        (16, ["--launch.processes=8", "--launch.nodes=2"]),
        (64, ["--launch.processes=8", "--launch.nodes=8"]),
    ],
)
def test_more_than_eight_devices_are_several_machines(devices, flags):
    assert Layout(devices, "").flags(["training"]) == flags
    assert Layout(devices, "zero3").flags(["training"]) == [*flags, "--training.deepspeed=zero3"]


def test_weights_that_are_gathered_over_machines_take_longer():
    config = large(LLM2LLMConfig(), **{"training.batch_size": 32, "teacher.engine.engine": "openai"})
    work, layout = {"fine-tune": Work(trained=10**6)}, Layout(16, "zero3")
    hours = [
        estimate_in(layout, config, GPU, 80.0, replace(ONE, network=network), work, prompt=64).total
        for network in (1e9, 5e8)
    ]
    passes = 2 * 10**6 / (config.training.batch_size * config.training.max_length)
    assert hours[1] - hours[0] == pytest.approx(passes * 2 * PARAMETERS / 1e9 / 3600)


def test_scoring_and_merging_are_done_by_one_device_however_large():
    """One process loads the whole model: nothing spreads it."""
    config = changed(PERLConfig(), {"policy.model": "llama-3.1-70b", "evaluation.engine.engine": "openai"})
    work = {"reward of answers": Work(read=10**6)}
    found = estimate_in(Layout(4, "zero3"), config, GPU, 80.0, ONE, work, prompt=64)
    body = architecture_of(config.policy, field="policy").parameters()
    assert found.too_large == ("merge", "reward of answers")
    assert found.spread == {}
    assert found.hours["reward of answers"] * 3600 == pytest.approx(10**6 * 2 * body / (1e12 * 0.25))
    assert estimate_line(found).endswith("does it alone: merge, reward of answers")
    assert estimate_in(Layout(4, "zero3"), config, GPU, 400.0, ONE, work, prompt=64).too_large == ()


@pytest.mark.parametrize("config", [LLM2LLMConfig(), PERLConfig(), ReSTConfig()])
def test_no_layout_by_deepspeed_is_advised_beside_a_file_for_fsdp(config, tmp_path):
    file = write_fsdp_config(tmp_path / "fsdp.yaml")
    config = changed(config, {"launch.launcher": "accelerate", "launch.config_file": file})
    found = layouts(config, replace(GPU, fsdp=True), 2000.0, prompt=64)
    assert {one.deepspeed for one in found} == {""}
    # A policy's training is not shared by FSDP at all.
    assert (max(one.devices for one in found) > 1) == (not hasattr(config, "ppo"))


def test_the_cheapest_layout_is_taken_and_large_answering_stages_are_spread():
    config = changed(
        LLM2LLMConfig(),
        {"student.model": "llama-3.1-70b", "training.batch_size": 32, "teacher.engine.engine": "openai"},
    )
    found = estimates(config, GPU, 80.0, SPEEDS[80.0], work_of(config, AMOUNTS), prompt=1024)
    assert found.layout
    assert found.layout.devices == 32
    assert found.flags == (
        "--launch.processes=8",
        "--launch.nodes=4",
        f"--training.deepspeed={found.layout.deepspeed}",
    )
    over = found.spread["evaluate"]
    evaluate = next(stage for stage in plan_stages(config, GPU, prompt=1024) if stage.name == "evaluate")
    assert needed(evaluate.memory.total / over) <= 80 * GB < needed(evaluate.memory.total / (over / 2))
    assert found.total == pytest.approx(sum(found.hours.values()))
    assert found.dollars >= found.hours["fine-tune"] * 3.0 * found.layout.devices


@pytest.mark.parametrize(("devices", "rows"), [(1, 32), (2, 32), (4, 16)])
def test_devices_that_train_a_policy_share_what_it_writes(devices, rows):
    # 64 responses a step: one device writes them in two rounds of 32, two in one, and four in one of 16.
    settings = {"ppo.batch_size": 64, "ppo.minibatch_size": 64, "ppo.max_new_tokens": 10, "ppo.steps": 3}
    config = changed(large(PERLConfig()), settings)
    config = changed(config, {"training.batch_size": devices, "reward_model.batch_size": devices})
    layout, fast = Layout(devices, ""), replace(ONE, flops=1e15)  # whose steps only wait for the weights
    found = estimate_in(layout, config, replace(GPU, processes=devices), 80.0, fast, WRITTEN, prompt=64)
    assert found.hours["ppo"] * 3600 == pytest.approx(3 * 64 * 10 / (rows * devices) * 2 * PARAMETERS / 5e10)
    assert inspect.signature(PolicySampler).parameters["batch_size"].default == 32


def test_a_policy_s_training_has_the_rest_of_a_device_that_vllm_takes_a_share_of():
    config, found = large(PERLConfig()), {}
    for share in (0.0, 0.03, 0.5, 0.9):
        asked = {"rollouts.engine": "vllm", "rollouts.memory": share} if share else {}
        (stage,) = (one for one in plan_stages(changed(config, asked), GPU, prompt=512) if one.name == "ppo")
        found[share] = stage.memory
    alone, base = found[0.0], 2 * PARAMETERS
    assert found[0.5].total == pytest.approx(alone.total / 0.5)
    assert found[0.9].total == pytest.approx(alone.total / 0.1)
    assert found[0.5].weights == alone.weights + base
    # So small a share of what the training needs would not hold the base: the device has to be larger.
    assert base < 0.03 * found[0.03].total < 1.1 * base
    assert found[0.5].lasting - alone.lasting == pytest.approx(found[0.5].total - alone.total)
    two = changed(config, {"rollouts.engine": "vllm"})
    assert (is_accepted(two, 1), is_accepted(two, 2), is_accepted(config, 2)) == (True, False, True)


def test_vllm_spreads_weights_and_cache_over_gpus_that_are_paid_for():
    config = changed(LLM2LLMConfig(), {"student.model": "llama-3.1-8b", "teacher.engine.engine": "openai"})
    config = changed(config, {"evaluation.engine.engine": "vllm", "evaluation.engine.batch_size": 4})
    stages, found = {}, {}
    for spread in (1, 2, 16):
        wide = changed(config, {"evaluation.engine.tensor_parallel": spread, "training.batch_size": 1})
        (stages[spread],) = (one for one in plan_stages(wide, GPU, prompt=512) if one.name == "evaluate")
        found[spread] = estimates(wide, GPU, 80.0, SPEEDS[80.0], work_of(wide, AMOUNTS), prompt=512)
    whole, halves, sixteenths = (stage.memory for stage in stages.values())
    assert halves.weights == 8_030_261_248  # 16 bits each, on two GPUs
    assert halves.cache == whole.cache / 2
    assert sixteenths.cache == whole.cache / 8  # there are eight heads of keys and values
    assert found[2].spread == {"evaluate": 2}
    assert not found[1].spread
    hours = found[2].hours
    assert hours["evaluate"] == pytest.approx(found[1].hours["evaluate"] / 2)
    assert found[2].dollars == pytest.approx(3.0 * (hours["fine-tune"] + 2 * hours["evaluate"]))
    ignored = changed(
        config, {"evaluation.engine.engine": "transformers", "evaluation.engine.tensor_parallel": 2}
    )
    (stage,) = (one for one in plan_stages(ignored, GPU, prompt=512) if one.name == "evaluate")
    assert stage.memory == whole


def test_a_device_of_two_computes_half_the_width_and_the_whole_mask():
    narrow = SHAPE.model_copy(update={"kv_heads": 1})
    found = writing(narrow, Memory(), 2, rows=1, prompt=2048, new=8, devices=2)
    # Two bytes of three products of the MLP and two states, and a mask as bool and in 16 bits.
    assert found.activations == 2048 * (3 * 1536 + 2 * 576) * 2 / 2 + 3 * 2048**2
    assert found.cache == 2048 * 2 * 2 * 30 * 64  # of the one head everywhere


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_behind_a_shared_prefix_have_the_mask_of_one_sequence(checkpointing):
    settings = {"training.batch_size": 4, "training.max_length": 512, "training.precision": "float32"}
    settings |= {"training.gradient_checkpointing": checkpointing}
    apart, shared = (
        plan_stages(changed(LLM2LLMConfig(), settings | {"training.batching": batching}), GPU, prompt=100)[0]
        for batching in ("length", "shared_prefix")
    )
    assert apart.name == shared.name == "fine-tune"
    # 4 rows of 512 tokens in a sequence of 2,048, each of whose pairs is a number of 4 bytes in each of 30 layers.
    more = 4 * (2048 * 2048 - 4 * 512 * 512) * (1 if checkpointing else 30)
    assert shared.memory.activations - apart.memory.activations == more


def test_a_layout_that_offloads_says_how_much_main_memory_it_takes():
    settings = {"student.model": "falcon-180b", "training.batch_size": 4, "training.method": "full"}
    config = large(LLM2LLMConfig(), **settings, **{"teacher.engine.engine": "openai"})
    config = changed(config, {"training.gradient_checkpointing": True})
    found = estimates(config, GPU, 141.0, SPEEDS[141.0], work_of(config, AMOUNTS), prompt=1024)
    assert found.layout
    assert found.layout.deepspeed == "zero3-offload"
    assert found.host == pytest.approx(18 * 178_557_088_768)
    assert "3,214 GB of main memory" in estimate_line(found)


def test_what_fits_nowhere_is_said():
    config = changed(PERLConfig(), {"policy.model": "falcon-180b", "evaluation.engine.engine": "openai"})
    found = estimates(config, GPU, 24.0, SPEEDS[24.0], work_of(config, AMOUNTS), prompt=256)
    assert (found.layout, found.total) == (None, 0)


def test_reinforce_takes_one_step_on_a_batch_and_trains_its_value_function() -> None:
    """As tasks/ppo/optimisation.py does it: what was sampled with other weights is of no use to it."""
    found = {
        algorithm: work_of(
            changed(PERLConfig(), {"ppo.algorithm": algorithm, "ppo.epochs": 4}), Amounts(rows=100)
        )["ppo"].trained
        for algorithm in ("ppo", "reinforce")
    }
    assert found["ppo"] == 4 * found["reinforce"] > 0


def test_one_iteration_has_no_baseline_of_equal_steps() -> None:
    one, two = (
        work_of(changed(LLM2LLMConfig(), {"iterations": number}), Amounts(rows=100, failing=0.0))
        for number in (1, 2)
    )
    assert two["fine-tune"].trained == 3 * one["fine-tune"].trained > 0
