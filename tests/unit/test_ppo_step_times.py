"""The time of a step: from the figures of the one before it to its own."""

import time

from tasks.ppo.step_times import TimedReport


def test_it_is_the_median_over_the_steps_and_other_events_do_not_count(monkeypatch):
    clock = iter([10.0, 17.0, 19.0, 22.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    passed_on = []
    timed = TimedReport(passed_on.append)
    assert timed.step_s == 0.0
    events = [{"step": 1}, {"progress": [1, 3]}, {"step": 2}, {"step": 3}]
    for event in events:
        timed(event)
    assert timed.step_s == 3.0  # of 7, 2 and 3
    assert passed_on == events
