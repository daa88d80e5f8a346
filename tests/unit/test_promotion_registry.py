"""The registry in MLflow (a SQLite file): decisions as tags, aliases that survive a kill, rollback, data versions."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.core.errors import UserError
from tasks.core.references import ModelRef
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.promotion.loading import champion_model, registered_model
from tasks.promotion.registry import CHAMPION, PREVIOUS, ModelRegistry


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        yield Tracking(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


@pytest.fixture
def registry(tracking, request):
    made = ModelRegistry(tracking, f"of {request.node.name}".replace("/", " ").replace(":", " ")[:200])
    made.create()
    return made


@pytest.fixture
def register(registry, tracking):
    run_id = tracking.start("retrain")

    def one(work: str, *, promoted: bool = True, parent: str = ""):
        return registry.register(
            weights(work),
            work=work,
            promoted=promoted,
            parent=parent,
            run_id=run_id,
            source="model",
            tags={"method": "rest", "decision": "better"},
        )

    return one


def weights(digest: str) -> ModelRef:
    base = ModelRef(uri="/store/base", digest="base")
    return ModelRef(uri=f"/store/{digest}", digest=digest, base=base)


def aliases(registry) -> tuple[str, str]:
    named = (registry.at(alias) for alias in (CHAMPION, PREVIOUS))
    champion, previous = (one.number if one else "" for one in named)
    return champion, previous


def promote(registry, register, *works: str) -> list:
    """Versions promoted one after the other."""
    found, parent = [], ""
    for work in works:
        version = register(work, parent=parent)
        assert registry.settle(version)
        parent = version.number
        found.append(version)
    return found


def test_a_promoted_version_becomes_champion_and_the_one_before_it_previous(registry, register):
    promote(registry, register, "a")
    assert aliases(registry) == ("1", "")
    registry.settle(register("b", parent="1"))
    assert aliases(registry) == ("2", "1")
    registry.settle(register("c", parent="2"))
    assert aliases(registry) == ("3", "2")


def test_a_version_that_was_not_promoted_is_registered_and_changes_no_alias(registry, register):
    promote(registry, register, "a")
    refused = register("b", promoted=False, parent="1")
    assert registry.settle(refused)
    assert aliases(registry) == ("1", "")
    assert [(one.number, one.promoted, one.settled) for one in registry.versions()] == [
        ("1", True, True),
        ("2", False, True),
    ]


def test_the_tags_say_what_was_decided_and_where_the_weights_are(registry, register):
    version = register("a")
    assert version.model == weights("a")
    assert {
        name: version.tags[name]
        for name in ("method", "model.uri", "model.digest", "base.uri", "base.digest")
    } == {
        "method": "rest",
        "model.uri": "/store/a",
        "model.digest": "a",
        "base.uri": "/store/base",
        "base.digest": "base",
    }


def test_work_that_was_registered_is_not_registered_again(registry, register):
    first = register("a")
    assert register("a").number == first.number
    assert len(registry.versions()) == 1


def test_a_kill_between_registration_and_alias_is_completed(registry, register):
    promote(registry, register, "a")
    register("b", parent="1")  # and killed
    assert aliases(registry) == ("1", "")
    version = registry.decided("b")
    assert version is not None
    assert not version.settled
    registry.settle(version)
    assert aliases(registry) == ("2", "1")


@pytest.mark.parametrize("calls", range(5))
def test_a_kill_within_the_change_of_aliases_is_completed_by_the_next_use(
    registry, register, tracking, monkeypatch, calls
):
    promote(registry, register, "a", "b")
    version = register("c", parent="2")
    with pytest.raises(KeyboardInterrupt):
        _killed_after(calls, registry, monkeypatch, lambda: registry.settle(version))
    again = ModelRegistry(tracking, registry.name)
    found = aliases(again)
    assert found in (("2", "1"), ("3", "2"))  # before or after, and nothing in between
    settled = again.decided("c")
    assert settled is not None
    assert again.settle(settled)
    assert aliases(again) == ("3", "2")


def _killed_after(calls, registry, monkeypatch, act):
    """Let `calls` changes in MLflow happen, and end at the next one."""
    real, left = registry._client, [calls]

    class Killed:
        def __getattr__(self, name):
            def call(*values, **named):
                if name.startswith(("set_", "delete_")):
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                return getattr(real, name)(*values, **named)

            return call

    monkeypatch.setattr(registry, "_client", Killed())
    act()
    raise KeyboardInterrupt  # everything was done before the kill


def test_a_settled_version_is_not_promoted_again_after_a_rollback(registry, register):
    promote(registry, register, "a", "b")
    registry.rollback()
    version = registry.decided("b")
    assert version is not None
    assert registry.settle(version)
    assert aliases(registry) == ("1", "2")


def test_a_decision_against_a_champion_that_is_no_longer_one_is_void(registry, register):
    promote(registry, register, "a")
    slow = register("b", parent="1")
    registry.settle(register("c", parent="1"))
    assert not registry.settle(slow)
    assert aliases(registry) == ("3", "1")
    again = registry.redecide(slow, promoted=True, parent="3", tags={"decision": "better still"})
    assert registry.settle(again)
    assert (aliases(registry), again.tags["decision"]) == (("2", "3"), "better still")


def test_of_two_that_settle_at_once_against_one_champion_the_later_is_void(
    registry, register, tracking, monkeypatch
):
    (first,) = promote(registry, register, "first")
    early, late = (register(work, parent=first.number) for work in ("early", "late"))
    other = ModelRegistry(tracking, registry.name)
    reached, change = threading.Event(), other._set

    def slowly(intended):
        reached.set()
        time.sleep(0.5)  # within which the other one looks who is champion, unless it waits
        change(intended)

    monkeypatch.setattr(other, "_set", slowly)
    with ThreadPoolExecutor() as threads:
        begun = threads.submit(other.settle, early)
        assert reached.wait(60)
        assert not registry.settle(late)
        assert begun.result()
    assert [registry.at(alias).number for alias in (CHAMPION, PREVIOUS)] == [early.number, first.number]


def test_rollback_swaps_and_a_second_one_swaps_back(registry, register):
    promote(registry, register, "a", "b", "c")
    now, before = registry.rollback()
    assert (now.number, before.number, aliases(registry)) == ("2", "3", ("2", "3"))
    registry.rollback()
    assert aliases(registry) == ("3", "2")


@pytest.mark.parametrize("calls", range(1, 5))
def test_a_rollback_that_was_killed_is_finished_and_not_undone_by_the_next(
    registry, register, tracking, monkeypatch, calls
):
    promote(registry, register, "a", "b")
    with pytest.raises(KeyboardInterrupt):
        _killed_after(calls, registry, monkeypatch, registry.rollback)
    again = ModelRegistry(tracking, registry.name)
    if calls < 4:  # the fourth change says that it was finished: asked once more, it would swap back
        again.rollback()
    assert aliases(again) == ("1", "2")


def test_rollback_without_a_previous_champion_is_refused(registry, register, tracking):
    with pytest.raises(UserError, match="no previous champion"):
        registry.rollback()
    promote(registry, register, "a")
    with pytest.raises(UserError, match="no previous champion"):
        registry.rollback()
    assert aliases(registry) == ("1", "")
    with pytest.raises(UserError, match="no registered model nobody") as caught:
        ModelRegistry(tracking, "nobody").rollback()
    assert registry.name in caught.value.mend


def test_making_the_registered_model_twice_is_once(registry, register):
    register("a")
    registry.create()
    assert len(registry.versions()) == 1


def test_data_versions_of_runs_at_once_stand_side_by_side_until_one_contains_them(registry):
    assert registry.heads() == {}
    registry.advance("v1", '{"rows": 1}', {})
    before = registry.heads()
    registry.advance("va", "a", before)
    registry.advance("vb", "b", before)  # knew of v1 alone
    assert registry.heads() == {"va": "a", "vb": "b"}
    registry.advance("joined", "ab", registry.heads())
    assert registry.heads() == {"joined": "ab"}
    registry.advance("joined", "ab", registry.heads())
    assert registry.heads() == {"joined": "ab"}


def test_the_champions_weights_are_found_by_name_and_by_address(registry, register, tracking):
    promote(registry, register, "a", "b")
    config = TrackingConfig(uri=tracking.uri)
    assert champion_model(registry.name, config) == weights("b")
    assert registered_model(f"models:/{registry.name}@previous", config) == weights("a")
    assert registered_model(f"models:/{registry.name}/1", config) == weights("a")


@pytest.mark.parametrize("address", ["models:/nobody@champion", "models:/nobody/3", "models:/a/b/c", "x"])
def test_an_address_of_nothing_is_refused_by_its_field(tracking, address):
    with pytest.raises(UserError) as caught:
        registered_model(address, TrackingConfig(uri=tracking.uri), field="student.model")
    assert caught.value.field == "student.model"


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "a:b", "it's"])
def test_a_name_that_cannot_be_one_is_refused(tracking, name):
    with pytest.raises(UserError, match="cannot name a registered model"):
        ModelRegistry(tracking, name)


def test_a_long_description_ends_at_a_line_and_says_that_there_is_more(registry, register, tracking):
    version = register("a")
    registry.describe(version, "short")
    assert tracking.client.get_model_version(registry.name, "1").description == "short"
    registry.describe(version, "a line of a card\n" * 400)
    kept = tracking.client.get_model_version(registry.name, "1").description
    assert len(kept) <= 5000
    assert kept.endswith("a line of a card\n\n(the rest is in the artifact)\n")
