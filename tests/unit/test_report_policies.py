"""The report of a policy trained on rewards: figures counted by hand, the page, answers side by side."""

import csv
from pathlib import Path
from typing import Any

import pytest

from tasks.core.examples import make_example, write_rows
from tasks.report.policy_headline import policy_headline
from tasks.report.policy_section import side_by_side
from tasks.report.stage import STAGE, ReportInputs
from tests.unit.report_loop import baseline, small_loop
from tests.unit.report_policies import POLICY, START, compare, few, figures_of, learned, reinforced, steps
from tests.unit.test_report_page import evil
from tests.unit.test_report_samples import FIRST, LAST, in_order, write

# The figures


def test_start_and_policy_stand_in_one_table_on_the_page_in_the_csv_and_for_prefect(tmp_path: Path) -> None:
    """Rewards of 0.2, 0.4, 0.6, 0.8 and 0.4, 0.4, 0.5, 1.0: two won, one even, one lost; the judge has it the other way
    round but for one tie."""
    compared = compare(tmp_path, START, POLICY, judged=(POLICY, START))
    result, parsed = write(tmp_path / "out", [reinforced(tmp_path, compared=compared)])
    begin = next(place for place, row in enumerate(parsed.rows) if row[:2] == ["Policy", "Steps"])
    heading, start, policy = parsed.rows[begin : begin + 3]
    assert [start[at] for at in (0, 1, 2, 3, 5, 6)] == ["Start", "–", "–", "–", "–", "–"]
    assert policy[:4] == ["Policy", "3", "1.25", "0.750"]
    reward, wins, judged = (
        policy[heading.index(name)] for name in ("Reward, held out", "Wins by reward", "Wins by judge")
    )
    assert start[heading.index("Reward, held out")].startswith("0.500")
    assert reward.startswith("0.575")
    # Wilson's interval of 2.5 of 4: (2.5 + z²/2 ± z sqrt(2.5 * 1.5 / 4 + z²/4)) / (4 + z²), with z² = 3.84
    assert wins == "62.5 %21.9 to 90.8 %"
    assert judged == "37.5 %9.2 to 78.1 %"
    assert policy[heading.index("Words") :] == ["3.0", "0.500", "0.625", "0.0 %"]
    with open(Path(result.page).with_name("policies.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["policy"] for row in rows] == ["start", "policy"]
    assert rows[0]["kl"] == ""
    assert (rows[1]["steps"], rows[1]["wins_judge"]) == ("3", "0.375")
    assert result.policies[1]["wins by reward"].replace("\u00a0", " ") == "62.5 % (21.9 to 90.8 %)"
    assert result.policies[0]["wins by reward"] == "–"
    assert {"policy": "policy", "steps": 3, "KL, nats": "1.25"}.items() <= result.policies[1].items()
    assert {"steps": 3, "test reward": 0.5}.items() <= result.table[0].items()
    assert not {"wrong", "kept", "generated"} & set(result.table[0])


def test_the_gain_is_paired(tmp_path: Path) -> None:
    """Of 400 prompts 40 gain 1 and none loses: the standard error of the gain is sqrt(0.1 * 0.9 / 400) = 1.5 points,
    those of either mean 2.5."""
    start, policy = [0.0] * 200 + [1.0] * 200, [1.0] * 40 + [0.0] * 160 + [1.0] * 200
    found = figures_of(reinforced(tmp_path, compared=compare(tmp_path, start, policy)))
    assert found.gain.mean == pytest.approx(0.1)
    assert found.gain.low == pytest.approx(0.1 - 1.96 * 0.015, abs=0.006)
    assert found.gain.high == pytest.approx(0.1 + 1.96 * 0.015, abs=0.006)
    assert found.start.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert found.policy.high == pytest.approx(0.6 + 1.96 * 0.0245, abs=0.01)


def test_one_prompt_and_one_step_are_enough(tmp_path: Path) -> None:
    compared = compare(tmp_path, [0.5], [0.25], judged=([0.0], [1.0]))
    record = reinforced(tmp_path, compared=compared, history=few(1), right=[True])
    _, parsed = write(tmp_path / "out", [record])
    assert "answers to 1 held-out prompt are worth 0.250 (0.250 to 0.250)" in parsed.text
    assert "The difference is −0.250 (paired 95 % interval −0.250 to −0.250)" in parsed.text
    assert "is worse than its start, by 0.250" in parsed.text


@pytest.mark.parametrize(
    ("judged", "words"),
    [
        (None, "No judge was asked."),
        (
            ([0.0] * 40, [1.0] * 30 + [0.0] * 10),
            "in 87.5 % of the prompts (73.9 to 94.5 %; 30 won, 10 even, 0 lost), which chance does not explain",
        ),
        (
            ([0.0, 1.0] * 20, [1.0, 0.0] * 20),
            "in 50.0 % of the prompts (35.2 to 64.8 %; 20 won, 0 even, 20 lost), which is not told apart",
        ),
    ],
)
def test_the_headline_says_what_the_judge_does(tmp_path: Path, judged: Any, words: str) -> None:
    record = reinforced(tmp_path, compared=compare(tmp_path, [0.25] * 40, [0.5] * 40, judged))
    said = policy_headline(figures_of(record), 0.95, "The rest.", ["so"])
    text = said.reading.replace("\u00a0", " ")
    assert words in text
    assert "The difference is +0.250 (paired 95 % interval +0.250 to +0.250): more by more than" in text
    assert text.endswith("The rest.")
    assert said.cautions == ["so"]


# The page


def test_nothing_is_said_of_a_teacher_or_lineage_and_every_link_leads_to_a_section(tmp_path: Path) -> None:
    start = baseline(tmp_path, FIRST, 20, "warm start")
    start.metrics["reward/test"] = 0.25
    _, parsed = write(tmp_path / "out", [reinforced(tmp_path)], [start])
    for words in (
        "eacher",
        "augmentation",
        "Lineage",
        "synthetic",
        "seed row",
        "Failed",
        "training time",
        "Wrong",
    ):
        assert words not in parsed.text
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for tag, attributes in parsed.elements if tag == "a"}
    assert {target.removeprefix("#") for target in targets if target} <= set(ids)
    assert "#policies" in targets
    assert not {"#teacher", "#filter", "#cases", "#lineage", "#curves"} & targets
    # the answers that changed are those since the start
    assert "Fixed: wrong at first, right in the end (5)" in parsed.text
    assert "Test accuracy went from 40.0 % " in parsed.text
    assert next(row for row in parsed.rows if row[0] == "1")[3:] == ["7", "3", "0.500"]


def test_a_loop_with_a_teacher_says_nothing_of_policies(tmp_path: Path) -> None:
    result, parsed = write(tmp_path / "out", small_loop(tmp_path, [FIRST, LAST]))
    assert "Policy" not in parsed.text
    assert result.policies == []
    assert not Path(result.page).with_name("policies.csv").exists()


def test_several_policies_are_told_apart(tmp_path: Path) -> None:
    second = reinforced(tmp_path, number=2, compared=compare(tmp_path / "second", POLICY, START))
    result, parsed = write(tmp_path / "out", [reinforced(tmp_path), second])
    begin = next(place for place, row in enumerate(parsed.rows) if row[:2] == ["Policy", "Steps"])
    names = [row[0] for row in parsed.rows[begin + 1 : begin + 5]]
    assert names == ["Start", "Policy, iteration 1", "Start", "Policy, iteration 2"]
    assert [row["iteration"] for row in result.policies] == [1, 1, 2, 2]
    assert "Iteration 2: Lost by the policy (2)" in parsed.text
    files = [Path(curve).stem for curve in result.curves]
    assert len(files) == len(set(files))
    assert {"reward-and-kl-1", "reward-and-kl-2"} <= set(files)


def test_no_text_of_data_or_model_becomes_markup(tmp_path: Path) -> None:
    rows = [
        {"id": evil("id"), "input": evil("input"), "start": evil("start said"), "policy": evil("policy said"),
         "start_reward": 0.25, "policy_reward": 0.5},
        {"id": "empty", "input": "x", "start": "", "policy": None, "start_reward": 0.5, "policy_reward": 0.5},
    ]  # fmt: skip
    compared = compare(tmp_path, START[:2], POLICY[:2])
    compared = compared.model_copy(update={"rows": write_rows(tmp_path / "evil.jsonl", rows)})
    record = reinforced(tmp_path, compared=compared, warnings=[evil("warning")], stopped=evil("stopped"))
    _, parsed = write(tmp_path / "out", [record])
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "iframe", "object", "link", "base", "b"}
    for label in ("id", "input", "start said", "policy said"):
        assert evil(label) in parsed.bdi
    for label in ("warning", "stopped"):
        assert any(evil(label) in text for text in parsed.bdi)
    marks = "\u202e\u2066\u2069"
    inside = sum(text.count(mark) for text in parsed.bdi for mark in marks)
    assert inside == sum(parsed.text.count(mark) for mark in marks) > 0
    assert parsed.text.count("(an empty answer)") == 4  # of all prompts, and of those that are even


def test_the_stage_on_json_values_gives_the_same_bytes_over_what_a_killed_attempt_left(
    tmp_path: Path,
) -> None:
    model = learned(tmp_path, [1.0, 2.0], [0.0, 3.0])
    loop = [reinforced(tmp_path, reward_model=model, history=steps(3))]
    start = baseline(tmp_path, FIRST, 10, "warm start")
    write(tmp_path / "one", loop, [start])
    (tmp_path / "two" / "curves").mkdir(parents=True)
    (tmp_path / "two" / "policies.csv").write_text("half", encoding="utf-8")
    inputs = ReportInputs(iterations=loop, comparisons=[start]).model_dump(mode="json")
    STAGE({}, inputs, tmp_path / "two", lambda event: None)
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(names) == 10  # page, two tables, seven curves
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# Side by side


def test_of_won_even_and_lost_prompts_a_choice_is_shown_that_does_not_look_at_rewards(tmp_path: Path) -> None:
    """Two runs in which the same prompts are won, tied and lost, by other rewards: the same prompts are shown."""
    signs = [1] * 50 + [0] * 4 + [-1] * 30
    small, large = (
        figures_of(reinforced(tmp_path / name, compared=compare(tmp_path / name, [0.5] * 84, rewards)))
        for name, rewards in (
            ("small", [0.5 + sign * (number + 1) / 1000 for number, sign in enumerate(signs)]),
            ("large", [0.5 + sign * (84 - number) / 200 for number, sign in enumerate(signs)]),
        )
    )
    chosen = side_by_side(small, 30, seed=3)
    assert [(part.words, part.count, len(part.shown)) for part in chosen.outcomes] == [
        ("Of all prompts", 84, 6),
        ("Won by the policy", 50, 10),
        ("Even", 4, 4),
        ("Lost by the policy", 30, 10),
    ]
    others = side_by_side(large, 30, seed=3)
    for one, other in zip(chosen.outcomes, others.outcomes, strict=True):
        assert [contest.id for contest in one.shown] == [contest.id for contest in other.shown]
    assert all(contest.policy_reward < contest.start_reward for contest in chosen.outcomes[3].shown)
    won = [contest.id for contest in small.contests[:50]]
    places = [won.index(contest.id) for contest in chosen.outcomes[1].shown]
    assert places == sorted(places)
    assert places != list(range(10))
    assert side_by_side(small, 30, seed=4) != chosen == side_by_side(small, 30, seed=3)


def test_prompt_and_both_answers_stand_beside_each_other_with_their_rewards(tmp_path: Path) -> None:
    text = write(tmp_path / "out", [reinforced(tmp_path)])[1].text
    lost = text[text.index("Lost by the policy (1)") :]
    prompt_id = make_example("prompt 2", "reply").id
    one = ["Start", "one word after another", "reward 0.600"]
    other = ["Policy", "another word, 2", "reward 0.500"]
    assert in_order(lost[lost.index("prompt 2") :], "prompt 2", prompt_id, *one, *other)
    assert "Won by the policy (2)" in text
    assert "Even (1)" in text
