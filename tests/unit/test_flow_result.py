"""What a flow prints for a person: the table of its iterations."""

from tasks.core.flow_result import FlowResult

WHOLE = {"eval/accuracy": 0.75, "eval/accuracy_low": 0.5, "eval/accuracy_high": 1.0, "eval/exact": 0.75}


def summary(*iterations: dict[str, float]) -> str:
    return FlowResult(
        flow="rest",
        status="completed",
        flow_run_id="",
        mlflow_run_id="",
        iterations=list(iterations),
        metrics=iterations[-1],
        model=None,
    ).summary()


def test_the_share_that_is_right_in_full_stands_beside_an_accuracy_that_counts_rows_in_part():
    text = summary(WHOLE, WHOLE | {"eval/exact": 0.25})
    assert "right in full" in text
    assert "25.0%" in text


def test_an_accuracy_of_right_and_wrong_stands_alone():
    assert "right in full" not in summary(WHOLE, WHOLE)
    assert "75.0% (50.0% to 100.0%)" in summary({name: WHOLE[name] for name in WHOLE if name != "eval/exact"})
