"""A training on rewards as the report draws it, and what it says against the policy."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.report.policy_cautions import policy_cautions
from tasks.report.policy_curves import draw_policy_curves, smooth
from tasks.report.records import IterationRecord
from tasks.report.stage import STAGE, ReportInputs
from tests.unit.report_policies import START, compare, figures_of, learned, reinforced, steps
from tests.unit.test_report_samples import write

# The curves


def curves_of(record: IterationRecord) -> dict[str, Any]:
    return {curve.name: curve for curve in draw_policy_curves([figures_of(record)])}


def test_the_curves_say_where_the_figures_begin_and_end(tmp_path: Path) -> None:
    found = curves_of(reinforced(tmp_path, history=steps(3)))
    names = ["reward-and-kl", "entropy", "clipped", "moved", "explained-variance", "length"]
    assert list(found) == names
    assert found["reward-and-kl"].alt == (
        "Reward and KL by step: the mean reward of the responses goes from 0.110 to 0.130, their KL from the start "
        "from 0.100 to 0.300."
    )
    assert found["clipped"].alt.endswith("policy from 0.200 to 0.200; value function from 0.100 to 0.100.")
    assert found["entropy"].light != found["entropy"].dark


def test_figures_that_an_algorithm_does_not_have_are_left_out(tmp_path: Path) -> None:
    missing = dict.fromkeys(("policy/clipfrac_avg", "val/clipfrac_avg", "val/explained_variance"))
    found = curves_of(reinforced(tmp_path, history=steps(3, **missing)))
    assert list(found) == ["reward-and-kl", "entropy", "moved", "length"]
    found = curves_of(reinforced(tmp_path, history=steps(3, **missing | {"objective/kl": None})))
    assert list(found) == ["entropy", "moved", "length"]


def pixels(curve: Any, colour: tuple[int, int, int]) -> Any:
    image = np.asarray(Image.open(BytesIO(curve.light)).convert("RGB")).astype(int)
    return np.abs(image - np.array(colour)).sum(axis=2) < 30


BLUE, RED = (31, 86, 181), (168, 72, 10)


def test_reward_and_kl_are_drawn_in_one_figure_each_over_its_whole_axis(tmp_path: Path) -> None:
    """Both rise from step to step, on scales of their own: each line fills the height of the figure."""
    found = curves_of(reinforced(tmp_path, history=steps(30)))
    for colour in (BLUE, RED):
        drawn = pixels(found["reward-and-kl"], colour)
        below = drawn[drawn.shape[0] // 6 :]  # beneath the legend
        places = below.nonzero()[0]
        assert places.max() - places.min() > 0.5 * below.shape[0]
    assert not pixels(found["entropy"], RED).any()


def test_an_explained_variance_far_below_nothing_does_not_flatten_the_rest(tmp_path: Path) -> None:
    """After a first step of -50 it rises from 0.2 to 0.8: of an axis that ends at -1 that is a third of the height."""
    history = [
        {"val/explained_variance": -50.0 if step == 0 else 0.2 + 0.6 * step / 30} for step in range(31)
    ]
    drawn = pixels(curves_of(reinforced(tmp_path, history=history))["explained-variance"], BLUE)
    right = drawn[:, drawn.shape[1] // 3 :].nonzero()[0]  # past the fall to the first value
    assert right.max() - right.min() > 0.12 * drawn.shape[0]


def test_long_trainings_are_drawn_as_a_mean_over_a_twentieth_of_the_steps() -> None:
    assert smooth([1.0, 3.0, 5.0]) == [1.0, 3.0, 5.0]
    values = [float(number % 2) for number in range(80)]
    assert smooth(values)[:5] == [0.0, 0.5, 1 / 3, 0.5, 0.5]
    assert smooth(values)[4:] == [0.5] * 76


def test_what_was_learned_from_preferences_is_shown_with_its_calibration(tmp_path: Path) -> None:
    """Three of four pairs right; the judge gets two of two."""
    model, judge = learned(tmp_path, [3, 3, 3, 0], [0, 0, 0, 3]), learned(tmp_path, [2, 2], [0, 0])
    record = reinforced(tmp_path, reward_model=model, judge=judge)
    _, parsed = write(tmp_path / "out", [record])
    row = next(row for row in parsed.rows if row[0] == "Reward model")
    assert row[1:3] == ["4", "75.0 %"]
    # of a margin of 3 logistic(3) = 0.953 is predicted, and 0.75 observed: 0.203 off, from both sides
    assert row[4] == "0.203"
    assert next(row for row in parsed.rows if row[0] == "Judge")[1:4] == ["2", "100.0 %", "100.0 to 100.0 %"]
    alt = curves_of(record)["calibration"].alt.replace("\u00a0", " ")
    assert "the reward model is right in 75.0 % of 4, its calibration error is 0.203" in alt
    assert "the judge is right in 100.0 % of 2" in alt


# The cautions


def cautions(folder: Path, *, learned: bool = True, **parts: Any) -> str:
    found = policy_cautions(figures_of(reinforced(folder, **parts)), learned=learned)
    return "\n".join(found).replace("\u00a0", " ")


def test_a_training_that_ended_early_says_why_once_and_at_the_top(tmp_path: Path) -> None:
    why = "the policy has collapsed: 95% of the responses are one token over and over. Lower the rate"
    record = reinforced(
        tmp_path, stopped=why, warnings=[why, "all responses were cut at the limit of 8 tokens"]
    )
    result = write(tmp_path / "out", [record])[1]
    inputs = ReportInputs(iterations=[record], stopped=why)
    (tmp_path / "stopped").mkdir()
    STAGE({}, inputs.model_dump(mode="json"), tmp_path / "stopped", lambda event: None)
    page = (tmp_path / "stopped" / "report.html").read_text(encoding="utf-8")
    for text in (result.text, page):
        assert text.count("the policy has collapsed") == 1
        assert f"The training ended early, after 3 steps: {why}." in text
        assert "During the training all responses were cut at the limit of 8 tokens." in text
        assert text.index("the policy has collapsed") < text.index("Policy and start on held-out prompts")


EVEN, WON, LOST = (
    ([0.0, 1.0] * 20, [1.0, 0.0] * 20),
    ([0.0] * 40, [1.0] * 40),
    ([1.0] * 40, [0.0] * 40),
)


@pytest.mark.parametrize(
    ("gain", "judged", "model", "words"),
    [
        (0.25, LOST, True, "prefers the start: the policy learned to please the reward"),
        (0.25, EVEN, True, "cannot tell the two apart"),
        (0.25, WON, True, ""),
        (0.25, None, True, "no judge was asked"),
        (0.25, None, False, ""),
        (0.0, EVEN, True, ""),
        (
            -0.25,
            EVEN,
            True,
            "By the very reward it was trained on the policy is worse than its start, by 0.250",
        ),
    ],
)
def test_a_reward_that_rises_without_the_judge_is_a_caution(
    tmp_path: Path, gain: float, judged: Any, model: bool, words: str
) -> None:
    start = [0.5, 0.25] * 20
    compared = compare(tmp_path, start, [reward + gain for reward in start], judged)
    found = cautions(tmp_path, compared=compared, learned=model)
    assert words in found
    assert bool(found) == bool(words)
    assert not words or gain <= 0 or "rose by 0.250" in found


def test_longer_alike_and_cut_answers_are_cautions(tmp_path: Path) -> None:
    """The start says four words, two of them new in every answer; the policy the same seven every time."""
    compared = compare(tmp_path, START, START, words=("{0} and then {0}0", "I think so, I think so, yes"))
    found = cautions(tmp_path, compared=compared)
    assert "longer than its start’s: 7.0 words on average, not 4.0" in found
    assert "became alike: distinct-2" in found
    assert "cut at the token limit" not in found
    cut = compared.policy.model_copy(update={"cut": 0.6})
    assert "60.0 % of the policy’s answers were cut" in cautions(
        tmp_path, compared=compared.model_copy(update={"policy": cut})
    )


def test_a_reward_model_that_chance_could_replace_and_prompts_left_out_are_cautions(tmp_path: Path) -> None:
    compared = compare(tmp_path, START, START).model_copy(update={"unanswered": 2})
    poor, good = learned(tmp_path, [1, 1, 0, 0], [0, 0, 1, 1]), learned(tmp_path, [1, 1], [0, 0])
    found = cautions(tmp_path, compared=compared, too_long=3, reward_model=poor, judge=good)
    assert "The reward model prefers the better answer in 50.0 % of 4 held-out pairs" in found
    assert "The judge prefers" not in found
    assert "2 of 6 held-out prompts stand in no figure here" in found
    assert "3 of 10 training prompts were too long" in found
