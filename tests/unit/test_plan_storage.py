"""What a planned run stores, and sends to a store on S3, against numbers worked out by hand."""

from dataclasses import replace

from flows.llm2llm import LLM2LLMConfig
from flows.perl import PERLConfig
from flows.rest import ReSTConfig
from tasks.core.config import Config
from tasks.plan.layouts import trainings
from tasks.plan.memory import GPU
from tasks.plan.remedies import changed
from tasks.plan.stages import plan_stages
from tasks.plan.storage import Stored, stored
from tasks.plan.traffic import Traffic, traffic
from tests.unit.test_plan_estimate import AMOUNTS, PARAMETERS, large


def test_an_adapter_and_its_checkpoints_are_small_whole_weights_are_not():
    config = changed(LLM2LLMConfig(), {"training.adapter.rank": 8, "training.adapter.modules": "q_proj"})
    (stage,) = trainings(plan_stages(config, GPU, prompt=64))
    adapter = 4 * 30 * 8 * (576 + 576)
    assert stored(config, stage, GPU) == Stored(adapter, 6 * adapter, 2 * PARAMETERS)
    whole = changed(config, {"training.method": "full"})
    assert stored(whole, stage, GPU) == Stored(4 * PARAMETERS, 24 * PARAMETERS, 2 * PARAMETERS)


def traffic_of(config: Config) -> Traffic:
    return traffic(config, plan_stages(config, GPU, prompt=64), GPU, AMOUNTS)


def test_mirrored_checkpoints_go_to_s3_beside_the_results_of_the_whole_run():
    settings = {"training.method": "full", "training.batch_size": 5, "training.gradient_accumulation": 2}
    settings |= {"training.epochs": 2.0, "training.checkpoint_steps": 10, "augment.rows": 3}
    config = large(LLM2LLMConfig(), **settings, **{"teacher.engine.engine": "openai"})
    # 100, 160, 220 and 220 rows twice, 10 a step: 140 steps of four trainings, 35 each, and a checkpoint at the end.
    found = traffic_of(config)
    # All weights are trained in float32, and so saved.
    assert found.results == found.read == 4 * 4 * PARAMETERS
    assert found.mirrored == 4 * 4
    assert found.checkpoints == 4 * 4 * 3 * 4 * PARAMETERS
    assert found.total == (4 + 4 + 48) * 4 * PARAMETERS
    alone = traffic_of(changed(config, {"launch.mirror_checkpoints": False}))
    assert alone == Traffic(results=found.results, read=found.read)
    assert traffic_of(changed(config, {"training.max_steps": 20})).mirrored == 4 * 2


def test_every_training_of_perl_and_rest_has_its_checkpoints():
    settings = {"ppo.steps": 41, "checkpoint_steps": 10, "training.epochs": 1.0, "training.batch_size": 100}
    settings |= {"reward_model.epochs": 1.0, "reward_model.batch_size": 1, "reward_model.checkpoint_steps": 5}
    # One of fine-tuning, four of PPO, and of 30 pairs three in each of two trainings: reward model and judge.
    assert traffic_of(large(PERLConfig(), **settings)).mirrored == 1 + 4 + 6
    settings = {
        "training.epochs": 1.0,
        "training.batch_size": 1000,
        "iterations": 3,
        "improve.levels": (0.5, 0.9),
    }
    config = large(ReSTConfig(), **settings, **{"grow.engine.engine": "openai"})
    passes = 3 * 2 + config.warm_start + config.equal_steps
    assert traffic_of(changed(config, {"training.checkpoint_steps": 10**6})).mirrored == passes


def test_checkpoints_of_zero_hold_a_copy_of_the_weights_in_float32():
    config = changed(LLM2LLMConfig(), {"training.method": "full", "training.deepspeed": "zero3"})
    (stage,) = trainings(plan_stages(config, GPU, prompt=64))
    for processes in (1, 2):
        found = stored(config, stage, replace(GPU, processes=processes))
        assert (found.model, found.checkpoint) == (2 * PARAMETERS, (2 + 12) * PARAMETERS)
    found = stored(changed(config, {"training.deepspeed": ""}), stage, GPU)
    assert (found.model, found.checkpoint) == (4 * PARAMETERS, 12 * PARAMETERS)
