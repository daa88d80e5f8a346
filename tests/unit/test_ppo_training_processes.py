"""What processes that train together share: positions, minibatches, one result; and batches that they cannot share."""

from pathlib import Path

import pytest
import torch

from tasks.core.errors import UserError
from tasks.core.examples import make_example
from tasks.ppo import config as ppo
from tasks.ppo import sharding
from tasks.ppo.config import PPOConfig
from tasks.ppo.processes import (
    from_first,
    last_of_processes,
    positions,
    process_number,
    share,
    shared_minibatches,
)
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.rollout import make_rollout
from tasks.ppo.training import Prompt, train_policy
from tests.unit.ppo_tabular import TabularRoles, order_kept


class Sampler:
    """Draws from a table, each response from a random stream of its own."""

    def __init__(self, roles: TabularRoles) -> None:
        self._roles = roles

    def sample(self, prompts, *, step, streams):
        rollouts = [
            self._roles.sample(prompt, 4, torch.Generator().manual_seed(1000 * step + stream))
            for prompt, stream in zip(prompts, streams, strict=True)
        ]
        responses = [rollout.response_tokens()[0] for rollout in rollouts]
        return make_rollout(prompts, responses, [bool(rollout.ended[0]) for rollout in rollouts], padding=0)


def learn(folder: Path, **changes) -> dict:
    """A training on a table: the table, the figures of every step, and what was said at the end."""
    config = PPOConfig(
        **{"steps": 6, "batch_size": 8, "minibatch_size": 4, "target_kl": 0.0, "schedule": "constant"}
        | {"policy_learning_rate": 0.1, "value_learning_rate": 0.1, "normalise_scores": "scale"}
        | changes
    )
    roles = TabularRoles(dtype=torch.float64)
    roles.value_on_trunk = False
    prompts = [Prompt(make_example(str(start), ""), [start]) for start in range(5)]
    score = lambda rollout, examples: order_kept(rollout)  # noqa: E731
    trained = train_policy(config, roles, Sampler(roles), score, prompts, folder, 100, lambda event: None)
    return {
        "logits": roles.logits.weight.detach(),
        "figures": trained.figures,
        "warnings": trained.warnings,
        "stopped": trained.stopped,
    }


ALARM = {"kl_alarm": 0.5}


def process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    found = {
        "number": process_number(),
        "share": list(share(6)),
        "positions": positions(3 if rank == 0 else 1),
        "first": from_first({"of": rank}),
        "last": [last_of_processes(text) for text in (("a", "b") if rank == 0 else ("", "c"))],
        "whole": learn(Path(folder)),
        "stopped": learn(Path(folder), **ALARM),
    }
    try:
        share(5)
    except ValueError as error:
        found["error"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ["whole", "stopped"])
def test_two_processes_decide_alike_and_learn_what_one_learns(found, case, tmp_path):
    alone = learn(tmp_path, **(ALARM if case == "stopped" else {}))
    one, other = (each[case] for each in found)
    assert one["figures"] == other["figures"]
    assert torch.equal(one["logits"], other["logits"])
    assert torch.allclose(one["logits"], alone["logits"], atol=1e-6)
    assert one["stopped"] == other["stopped"] == alone["stopped"]
    assert one["warnings"] == other["warnings"] == alone["warnings"]
    for here, there in zip(one["figures"], alone["figures"], strict=True):
        assert here == pytest.approx(there, abs=1e-6)
    if case == "stopped":
        assert "the KL has exploded" in alone["stopped"]
        assert 1 < len(alone["figures"]) < 6
    else:
        assert (alone["stopped"], len(alone["figures"])) == ("", 6)
        assert float(alone["logits"].abs().max()) > 0.1


def test_two_processes_take_equal_shares_and_hear_the_first(found):
    assert [one["number"] for one in found] == [0, 1]
    assert [one["share"] for one in found] == [[0, 1, 2], [3, 4, 5]]
    assert [one["positions"] for one in found] == [(0, 4), (3, 4)]
    assert [one["first"] for one in found] == [{"of": 0}] * 2
    assert [one["last"] for one in found] == [["a", "c"]] * 2
    assert all("2 processes cannot share 5" in one["error"] for one in found)


def test_a_lone_process_has_everything():
    assert (process_number(), share(5), positions(7)) == (0, range(5), (0, 7))
    assert from_first({"of": "me"}) == {"of": "me"}


@pytest.mark.parametrize(
    ("responses", "size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (12, 12, [12]),
        (12, 64, [12]),
        (1, 1, [1]),
        (5, 2, [1, 2, 2]),  # of nearly equal size, none above 2
        (7, 3, [2, 2, 3]),
    ],
)
def test_minibatches_hold_every_response_once(responses, size, sizes):
    parts = shared_minibatches(responses, size, torch.Generator().manual_seed(3))
    assert sorted(len(part) for part in parts) == sizes
    assert sorted(torch.cat(parts).tolist()) == list(range(responses))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_have_equally_many_responses_of_every_minibatch(processes):
    parts = shared_minibatches(32, 8, torch.Generator().manual_seed(0))
    each = 32 // processes
    for part in parts:
        assert torch.bincount(part // each, minlength=processes).tolist() == [8 // processes] * processes


def test_neighbours_meet_others_in_every_epoch_and_each_place_is_as_likely():
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(12, 3)
    for _ in range(600):
        for number, part in enumerate(shared_minibatches(12, 4, generator)):
            counts[part, number] += 1
    assert bool(((counts - 200).abs() < 60).all())  # five standard deviations of the binomial are 58


@pytest.mark.parametrize(
    ("changes", "processes", "field"),
    [
        ({"batch_size": 6, "minibatch_size": 4}, 4, "ppo.batch_size"),
        ({"batch_size": 8, "minibatch_size": 2}, 4, "ppo.minibatch_size"),
        ({"batch_size": 6, "algorithm": "reinforce"}, 4, "ppo.batch_size"),
        ({"batch_size": 8, "minibatch_size": 4}, 4, None),
        ({"batch_size": 8, "minibatch_size": 3, "algorithm": "reinforce"}, 4, None),
        ({"batch_size": 7, "minibatch_size": 3}, 1, None),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(changes, processes, field):
    config = PPOConfig(**changes)
    if field is None:
        ppo.check(config, processes=processes)
        return
    with pytest.raises(UserError, match=f"{processes} processes cannot share") as error:
        ppo.check(config, processes=processes)
    assert error.value.field == field
    assert f"multiple of {processes}" in error.value.mend


@pytest.mark.parametrize(
    ("file", "changes", "roles", "processes", "words"),
    [
        ('{"zero_optimization": {"stage": 3}}', {}, {}, 2, None),
        ('{"zero_optimization": {"stage": 2}}', {"algorithm": "reinforce", "batch_size": 70}, {}, 2, None),
        ('{"zero_optimization": {"stage": 2}}', {}, {"method": "full"}, 1, None),
        ('{"zero_optimization": {"stage": 1}}', {}, {}, 1, "stage 1"),
        ('{"zero_optimization": {"stage": 1}}', {}, {}, 2, "stage 1"),
        ('{"zero_optimization": {"stage": 3, "offload_param": {}}}', {}, {}, 2, "offload_param"),
        ('{"zero_optimization": {"stage": 3}}', {}, {"method": "full"}, 2, "one base with adapters"),
        ('{"zero_optimization": {"stage": 3}}', {}, {"value": "model"}, 2, "one base with adapters"),
        ('{"zero_optimization": {"stage": 3}}', {"batch_size": 40}, {}, 2, "do not divide a batch of 40"),
        ("{}", {}, {}, 2, "no DeepSpeed configuration"),
        ("[3]", {}, {}, 2, "no DeepSpeed configuration"),
        ("stage: 3", {}, {}, 2, "no DeepSpeed configuration"),
        (None, {}, {}, 2, "no DeepSpeed configuration"),
    ],
)
def test_what_deepspeed_cannot_train_is_refused(file, changes, roles, processes, words, tmp_path):
    if file is not None:
        (tmp_path / "zero.json").write_text(file)
    config = PPOConfig(deepspeed=str(tmp_path / "zero.json"), **changes)
    if words is None:
        sharding.check(config, RolesConfig(**roles), processes)
        return
    with pytest.raises(UserError, match=words) as error:
        sharding.check(config, RolesConfig(**roles), processes)
    assert error.value.field == "ppo.deepspeed"


def test_the_shipped_deepspeed_file_is_read():
    assert sharding.read_zero("infra/deepspeed/zero3.json")["stage"] == 3


def test_without_deepspeed_nothing_is_checked():
    sharding.check(PPOConfig(batch_size=40), RolesConfig(method="full"), 1)
