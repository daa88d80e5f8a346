"""The speed that a plan measures on this machine, and what its memory is taken to be."""

import pytest

from flows.llm2llm import LLM2LLMConfig
from tasks.core.errors import UserError
from tasks.plan.layouts import Layout, layouts
from tasks.plan.memory import CPU, GB, GPU
from tasks.plan.speed import Pass, calibrated, seconds
from tasks.plan.stages import plan_stages
from tasks.plan.work import Work
from tests.unit.test_plan_estimate import SHAPE, large


def test_cuda_takes_nothing_of_a_machine_without_a_gpu():
    config = large(LLM2LLMConfig(), **{"teacher.engine.engine": "openai", "training.batch_size": 1})
    (stage,) = plan_stages(config, CPU, prompt=64)
    size = stage.memory.total * 1.05 / GB
    assert layouts(config, CPU, size * 1.001, prompt=64) == [Layout(1, "")]
    assert not layouts(config, CPU, size * 0.999, prompt=64)
    (stage,) = plan_stages(config, GPU, prompt=64)
    assert not layouts(config, GPU, (stage.memory.total * 1.05 + 0.79e9) / GB, prompt=64)


def test_a_model_whose_layers_exceed_the_free_memory_is_not_calibrated():
    # Two layers of 16 x 2^40 weights, 2^30 of an embedding, and as many gradients, of four bytes.
    wide = {
        "hidden": 1 << 20,
        "heads": 1 << 13,
        "kv_heads": 1 << 13,
        "head_size": 128,
        "intermediate": 4 << 20,
    }
    with pytest.raises(UserError, match=r"take 281483\.6 GB") as error:
        calibrated(SHAPE.model_copy(update=wide), 4)
    assert error.value.field == "--calibrate"


def test_calibration_measures_this_machine():
    small = SHAPE.model_copy(
        update={
            "hidden": 64,
            "heads": 2,
            "kv_heads": 1,
            "head_size": 32,
            "intermediate": 128,
            "vocabulary": 100,
        }
    )
    speed = calibrated(small, 4, tokens=16)
    assert speed.flops > 0
    assert speed.bandwidth > 0
    assert seconds(small, Work(100, 100, 100), Pass(True, False, 1, 4, 1), speed) > 0
