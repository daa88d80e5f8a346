"""Two processes learn what one learns from the responses of both."""

from pathlib import Path

import pytest
import torch

from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import AdaptiveKL
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer
from tasks.ppo.running_moments import RunningMoments
from tests.unit.ppo_tabular import SCORES, TabularRoles, some_rollout

SHARES = (slice(0, 4), slice(4, 5))
"""16 valid tokens, of which the second process has 2: means of the processes' means would be wrong."""

CASES = [
    {"target_kl": 0.0},
    {"target_kl": 1e-4},
    {"algorithm": "reinforce"},
    {"target_kl": 0.0, "minibatch_size": 2},  # the second process has nothing in two of three minibatches
]


def learn(rows: slice, changes: dict) -> dict:
    """Three updates on some of the responses; the weights, the figures and the controller's coefficient."""
    config = PPOConfig(
        **{
            "batch_size": 5,
            "minibatch_size": 5,
            "epochs": 2,
            "micro_batch_size": 2,
            "policy_learning_rate": 0.1,
            "value_learning_rate": 0.1,
            "normalise_scores": "scale",
        }
        | changes
    )
    roles = TabularRoles(seed=1, spread=0.5, dtype=torch.float64)
    controller, moments = AdaptiveKL(0.1, target=0.5, horizon=20), RunningMoments()
    optimizer, generator = make_optimizer(roles, config), torch.Generator().manual_seed(0)
    for _ in range(3):
        metrics = update(
            roles,
            some_rollout().select(rows),
            SCORES[rows].double(),
            config,
            controller,
            optimizer,
            generator,
            moments=moments,
        )
    return {
        "logits": roles.logits.weight.detach(),
        "worth": roles.worth.weight.detach(),
        "metrics": metrics,
        "coefficient": controller.coefficient,
    }


def process(rank: int, folder: str, cases: list[dict]) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(SHARES)
    )
    torch.save([learn(SHARES[rank], changes) for changes in cases], Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[list[dict]]:
    """What each of two processes found, a case after the other."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder), CASES), nprocs=len(SHARES))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARES))]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_processes_learn_together(together, case):
    alone = learn(slice(None), CASES[case])
    for found in (process[case] for process in together):
        for name in ("logits", "worth"):
            assert torch.allclose(found[name], alone[name], atol=1e-9)
        assert found["metrics"] == pytest.approx(alone["metrics"], abs=1e-8)
        assert found["coefficient"] == pytest.approx(alone["coefficient"])
    assert alone["metrics"]["policy/stopped_early"] == float(CASES[case].get("target_kl") == 1e-4)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_processes_have_one_state(together, case):
    one, other = (process[case] for process in together)
    assert torch.equal(one["logits"], other["logits"])
    assert one["metrics"] == other["metrics"]
    assert one["coefficient"] == other["coefficient"]
