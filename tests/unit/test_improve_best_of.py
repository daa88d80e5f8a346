"""The best of n answers to every held-out row, against what Grow draws of the same prompts."""

import pytest

from tasks.core.examples import write_rows
from tasks.improve.best_of import best_of
from tests.unit.small_grow import PROMPTS, Grower


@pytest.mark.parametrize("samples", [1, 4])
def test_it_is_the_mean_of_every_prompts_best_reward(tmp_path, tiny_ref, samples):
    grower = Grower(tmp_path, tiny_ref)
    growth = grower.growth(samples=samples)
    expected = growth.grow(tiny_ref, 1).best
    prompts = write_rows(tmp_path / "held-out.jsonl", PROMPTS)
    config = growth.config.model_copy(update={"best_of": samples})
    assert best_of(growth.scoring, config, tiny_ref, prompts) == pytest.approx(expected)
