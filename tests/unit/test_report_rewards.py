"""What the report says when a reward is pleased and the task is not learned; its curves of rewards."""

from pathlib import Path
from typing import Any

import pytest

from tasks.improve.figures import Selection
from tasks.report.beginning import first_iteration, set_out_from
from tasks.report.compare import Difference
from tasks.report.drawing import Curve
from tasks.report.records import IterationRecord
from tasks.report.reward_cautions import RewardChange, reward_cautions
from tasks.report.reward_curves import draw_reward_curves
from tasks.report.sample_section import read_samples
from tasks.report.samples import held_out_reward, improve_steps
from tasks.report.tables import iteration_rows
from tests.unit.report_loop import answers, baseline, held_out
from tests.unit.report_samples import draw, sampled_loop, select


def caution(first: float, last: float, mean: float, low: float, high: float) -> str:
    """What is said of a reward and of the accuracy's change over the same iterations."""
    accuracy = Difference(rows=100, mean=mean, low=low, high=high, fixed=0, broken=0, p=1.0)
    change = RewardChange("iteration 1", "test", first, last, accuracy)
    return " ".join(reward_cautions([], change, 0.9)).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((0.4, 0.6, -0.10, -0.15, -0.05), "while test accuracy fell (−10.0 points, paired 90 % interval"),
        (
            (0.4, 0.42, -0.10, -0.15, -0.05),
            "while test accuracy fell",
        ),  # a small rise is enough beside a loss
        ((0.4, 0.6, 0.0, 0.0, 0.0), "cannot be told from standing still (0.0 points, paired 90 % interval"),
        ((0.4, 0.6, -0.02, -0.06, 0.02), "cannot be told from standing still"),
        (
            (0.4, 0.44, 0.0, -0.05, 0.05),
            "",
        ),  # accuracy may have gained as much: no reason to suspect anything
        ((0.4, 0.6, 0.1, 0.05, 0.15), ""),  # it rose
        ((0.6, 0.4, -0.10, -0.15, -0.05), ""),  # both fell
        ((0.4, 0.405, -0.10, -0.15, -0.05), ""),  # less than a point
        ((0.4, 0.4, 0.0, 0.0, 0.0), ""),
    ],
)
def test_a_reward_that_rises_without_the_accuracy_is_a_caution(figures: Any, words: str) -> None:
    text = caution(*figures)
    assert words in text
    assert bool(text) == bool(words)
    if text:
        assert f"on the test rows rose from {figures[0]:.3f} (iteration 1) to {figures[1]:.3f}" in text
        assert "reward hacking" in text


def section(
    loop: list[IterationRecord], verdicts: list[bool], start: Any = None, most: int = 5
) -> tuple[list[str], list[Curve]]:
    """The cautions and the curves of a loop whose last answers are right as `verdicts` tell."""
    first = first_iteration(loop)
    beginning = (set_out_from([start], 0.95, 0) if start else None) or first
    last = answers(held_out(len(verdicts)), verdicts)
    shown: dict[str, Any] = {
        "settings": {"improve.by": "threshold"},
        "most": most,
        "confidence": 0.95,
        "seed": 0,
    }
    found = read_samples(loop, iteration_rows(loop), beginning, first, last, **shown)
    return found.cautions, found.curves


GOOD, MIDDLING, POOR = [True] * 40, [True] * 30 + [False] * 10, [True] * 20 + [False] * 20


@pytest.mark.parametrize("rows", ["validation", "test"])
def test_reward_and_accuracy_are_compared_from_the_first_iteration_on(tmp_path: Path, rows: str) -> None:
    rewards = [{f"reward/{rows}": 0.5}, {f"reward/{rows}": 0.9}]
    cautions, _ = section(sampled_loop(tmp_path, [MIDDLING, POOR], metrics=rewards), POOR)
    assert len(cautions) == 1
    assert f"on the {rows} rows rose from 0.500 (iteration 1) to 0.900" in cautions[0]
    assert "fell (−25.0 points" in cautions[0]


def test_the_comparison_begins_at_the_warm_start_when_its_reward_is_known(tmp_path: Path) -> None:
    """From the warm start on 40 become 20, from iteration 1 on nothing changes."""
    loop = sampled_loop(tmp_path, [POOR, POOR], metrics=[{"reward/test": 0.5}, {"reward/test": 0.501}])
    start = baseline(tmp_path, GOOD, 10, "warm start")
    assert section(loop, POOR, start)[0] == []
    start.metrics["reward/test"] = 0.3
    (text,) = section(loop, POOR, start)[0]
    assert "rose from 0.300 (the warm start) to 0.501" in text
    assert "fell (−50.0 points" in text


def test_the_reward_on_test_rows_goes_before_that_on_validation_rows(tmp_path: Path) -> None:
    both = {"reward/test": 0.2, "reward/validation": 0.8}
    loop = sampled_loop(tmp_path, [POOR, POOR], metrics=[both, both])
    found = held_out_reward(loop)
    assert found is not None
    assert (found.rows, found.values) == ("test", [0.2, 0.2])
    del loop[1].metrics["reward/test"]
    found = held_out_reward(loop)
    assert found is not None
    assert found.rows == "validation"
    del loop[0].metrics["reward/validation"]
    assert held_out_reward(loop) is None


def test_one_iteration_without_an_earlier_reward_is_no_ground_for_a_caution(tmp_path: Path) -> None:
    assert section(sampled_loop(tmp_path, [POOR], metrics=[{"reward/test": 0.9}]), POOR)[0] == []


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ({"words": 4.0}, {"words": 6.0}, ""),  # a factor of 1.5 and no more
        (
            {"words": 4.0},
            {"words": 6.5},
            "became longer between iterations 1 and 2: from 4.0 words on average to 6.5",
        ),
        ({"words": 6.5}, {"words": 4.0}, "became shorter between iterations 1 and 2: from 6.5"),
        ({"words": 5.0}, {"words": 0.0}, "became shorter"),  # a policy that has come to answer with nothing
        ({"words": 0.0}, {"words": 0.0}, ""),
        (
            {"words": 5.0},
            # What is left are training rows that are mixed in: of no sample there is no length.
            {"samples": 0, "words": 0.0, "distinct_2": 0.0},
            "Not one sample came of the policy in iteration 2: it ended every answer at once, or answered none.",
        ),
        ({"distinct_2": 0.6}, {"distinct_2": 0.41}, ""),
        ({"distinct_2": 0.6}, {"distinct_2": 0.39}, "became alike between iterations 1 and 2"),
        ({"distinct_2": 0.3}, {"distinct_2": 0.9}, ""),
    ],
)
def test_a_drift_of_length_or_diversity_is_a_caution(
    tmp_path: Path, first: Any, last: Any, words: str
) -> None:
    loop = sampled_loop(tmp_path, [POOR, POOR], before=[first, last])
    text = " ".join(section(loop, POOR)[0])
    assert words in text
    assert bool(text) == bool(words)
    assert ("became" in text) == ("became" in words)


def nothing_kept(taken: list[list[bool]]) -> str:
    """What is said of iterations whose steps kept something, or not."""
    selections = [[select(draw(1), 0.2 if kept else 0.95, {}) for kept in iteration] for iteration in taken]
    return " ".join(reward_cautions(_steps(selections), None, 0.95))


def _steps(selections: list[list[Selection]]) -> Any:
    records: list[Any] = [
        IterationRecord.model_construct(number=number, selections=steps)
        for number, steps in enumerate(selections, start=1)
    ]
    return improve_steps(records, {"improve.by": "threshold"})


def test_filters_that_kept_nothing_are_named() -> None:
    assert nothing_kept([[True, True], [True]]) == ""
    text = nothing_kept([[True, True], [True, False]])
    assert "kept nothing in iteration 2 (reward above 0.95): such a step is not trained" in text
    assert "nothing at all" not in text
    text = nothing_kept([[False], [True, False], [False]])
    assert "in iterations 1 (reward above 0.95), 2 (reward above 0.95), 3 (reward above 0.95):" in text
    assert text.endswith("Iterations 1, 3 trained on nothing at all.")
    text = nothing_kept([[False]] * 9)
    assert "and 4 more: such a step" in text
    assert text.endswith("Iterations 1, 2, 3, 4, 5 and others trained on nothing at all.")


def test_the_curve_says_where_reward_and_accuracy_begin_and_end(tmp_path: Path) -> None:
    rewards = [{"reward/test": 0.5, "reward/mean": 0.4}, {"reward/test": 0.7, "reward/mean": 0.6}]
    loop = sampled_loop(tmp_path, [MIDDLING, POOR], metrics=rewards)
    start = baseline(tmp_path, GOOD, 10, "warm start")
    curve = section(loop, POOR, start)[1][0]
    assert curve.title == "Reward and task score"
    assert curve.alt.replace("\u00a0", " ") == (
        "Test accuracy goes from 100.0 % to 50.0 %; reward, test rows, from 0.500 to 0.700; "
        "reward, samples, from 0.400 to 0.600. The band is an interval."
    )
    start.metrics["reward/test"] = 0.3
    assert "reward, test rows, from 0.300 to 0.700" in section(loop, POOR, start)[1][0].alt
    assert (
        "from 75.0" in section(loop, POOR)[1][0].alt
    )  # without a start the first iteration is the first point


def test_without_any_reward_there_is_no_curve_of_it(tmp_path: Path) -> None:
    loop = sampled_loop(tmp_path, [POOR])
    del loop[0].metrics["reward/mean"]
    assert [curve.name for curve in section(loop, POOR)[1]] == ["rewards-iteration-1"]


def test_a_histogram_shows_the_last_step_that_was_taken(tmp_path: Path) -> None:
    loop = sampled_loop(tmp_path, [POOR, POOR], levels=[0.2, 0.7, 0.95])  # nothing lies above 0.95
    idle = select(draw(2), 0.95, {})
    loop[1] = loop[1].model_copy(update={"selections": [idle]})
    first, second = (curve for curve in section(loop, POOR)[1] if curve.name.startswith("rewards"))
    assert first.alt == (
        "Rewards in iteration 1, reward above 0.7: 12 rows with a mean reward of 0.467 before the filter, "
        "4 after it, with 0.900."
    )
    assert second.alt.endswith(
        "reward above 0.95: 12 rows with a mean reward of 0.467 before the filter, 0 after it."
    )
    assert first.light != first.dark
    assert first.light.startswith(b"\x89PNG")


def test_of_many_iterations_six_histograms_are_drawn_from_the_first_to_the_last(tmp_path: Path) -> None:
    loop = sampled_loop(tmp_path, [POOR[:2]] * 11, levels=[0.2])
    steps = improve_steps(loop, {})
    names = [
        curve.name for curve in draw_reward_curves(iteration_rows(loop), steps, None, first_iteration(loop))
    ]
    assert names[-6:] == [f"rewards-iteration-{number}" for number in (1, 3, 5, 7, 9, 11)]


def test_the_bars_of_a_histogram_are_the_counts(tmp_path: Path) -> None:
    """A light bar's pixels stand where rewards lie: none of this loop's lie between 0.55 and 0.85."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    loop = sampled_loop(tmp_path, [POOR], levels=[0.7])
    (curve,) = (curve for curve in section(loop, POOR)[1] if curve.name == "rewards-iteration-1")
    pixels = np.asarray(Image.open(BytesIO(curve.light)).convert("RGB")).astype(int)
    kept, before = (
        (np.abs(pixels - np.array(colour)).sum(axis=2) < 8) for colour in ((31, 86, 181), (95, 107, 122))
    )
    width = pixels.shape[1]
    lower = slice(pixels.shape[0] // 2, pixels.shape[0] * 3 // 4)  # beneath the legend, above the axis
    assert kept[lower].any(axis=0).nonzero()[0].min() > 0.8 * width  # what was kept was worth 0.9
    grey = before[lower].all(axis=0).nonzero()[0]  # full columns: bars, not lines
    assert grey.min() < 0.2 * width
    assert ((grey > 0.45 * width) & (grey < 0.65 * width)).any()
    assert grey.max() < 0.65 * width  # the bar of 0.9 is hidden behind what was kept of it
