"""A reward model that was trained before: full weights go with anything, an adapter with its own base alone."""

from pathlib import Path
from typing import Any

import pytest

from flows.perl import PERLConfig, loop
from tasks.base_model import ModelConfig
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.references import ModelRef
from tasks.data.config import DataConfig
from tasks.reward_model.config import PreferenceConfig, RewardTrainingConfig
from tasks.reward_model.learned import learn_reward, learn_rewards
from tasks.reward_model.ready import check_ready, check_unmerged, ready_model
from tasks.reward_model.scoring import load_reward_model
from tasks.rewards.config import RewardConfig
from tests.cached_run import CachedRun
from tests.s3_server import s3_server
from tests.tiny_model import build_tiny_model
from tests.unit.reward_pairs import TEST, train_reward


class Alone:
    """Runs stages in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stage(self, stage: Any, config: Any, inputs: Any, **_: Any) -> Any:
        return stage.run(config, inputs, self.folder, lambda event: None)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef) -> ModelRef:
    return train_reward(tmp_path_factory.mktemp("adapter"), tiny_ref, test=TEST).model


def test_an_adapter_lies_on_the_base_that_it_was_trained_on(
    tmp_path: Path, tiny_ref: ModelRef, adapter: ModelRef
) -> None:
    reward, run = RewardConfig(by="model", model=adapter.uri), Alone(tmp_path)
    unused = (PreferenceConfig(), RewardTrainingConfig())
    found = learn_reward(run, reward, ModelConfig(model=tiny_ref.uri), *unused).reward  # type: ignore[arg-type]
    shared = learn_rewards(run, reward, tiny_ref, *unused, judge=True).reward  # type: ignore[arg-type]
    for one in (found, shared):
        assert one is not None
        assert one.base is not None
        assert (one.digest, one.base.digest) == (adapter.digest, tiny_ref.digest)
        scores = [load_reward_model(ref).score([TEST[0].conversation], ["Hello"]) for ref in (one, adapter)]
        assert scores[0] == scores[1]


def test_an_adapter_on_the_policy_itself_is_refused_before_that_is_fine_tuned(
    tmp_path: Path, tiny_ref: ModelRef, adapter: ModelRef
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "Hello?", "target": "Hello."}\n')
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text('{"input": "Goodbye?", "target": "Goodbye."}\n')
    config = PERLConfig(
        data=DataConfig(problem="dialogue", train=str(rows), test=str(held_out)),
        policy=ModelConfig(model=tiny_ref.uri),
        reward=RewardConfig(by="model", model=adapter.uri),
    )
    with pytest.raises(UserError, match="as it is, but here the base is") as caught:
        loop(CachedRun(tmp_path), config)  # type: ignore[arg-type]
    assert caught.value.field == "reward.model"
    assert "set sft to false" in caught.value.mend
    assert not (tmp_path / "store" / "sft").exists()


def test_only_an_adapter_of_these_very_weights_is_refused_before_they_are_merged(
    tmp_path: Path, tiny_ref: ModelRef, adapter: ModelRef
) -> None:
    with pytest.raises(UserError):
        check_unmerged(adapter.uri, tiny_ref)
    check_unmerged(adapter.uri, tiny_ref.model_copy(update={"digest": "0" * 64}))
    check_unmerged(tiny_ref.uri, tiny_ref)  # full weights go with any policy


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, tiny_ref: ModelRef, adapter: ModelRef) -> None:
    folder = build_tiny_model(tmp_path / "other", seed=1)
    other = ModelRef(uri=str(folder), digest=folder_digest(folder), facts={"name": "other-base"})
    with pytest.raises(UserError, match="other-base") as caught:
        ready_model(adapter.uri, other)
    assert tiny_ref.digest[:12] in caught.value.fault
    assert caught.value.field == "reward.model"


def test_a_reward_model_in_an_object_store_is_fetched(tiny_ref: ModelRef, adapter: ModelRef) -> None:
    with s3_server("rewards") as client:
        for path in Path(adapter.uri).iterdir():
            client.upload_file(str(path), "rewards", f"adapter/{path.name}")
        check_ready("s3://rewards/adapter")
        found = ready_model("s3://rewards/adapter", tiny_ref)
        assert (found.uri, found.digest) == ("s3://rewards/adapter", adapter.digest)
        with pytest.raises(UserError, match="there is nothing at") as caught:
            check_ready("s3://rewards/absent")
    assert caught.value.field == "reward.model"
    scores = [load_reward_model(ref).score([TEST[0].conversation], ["Hello"]) for ref in (found, adapter)]
    assert scores[0] == scores[1]
