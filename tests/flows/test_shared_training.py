"""One training by one process and by two, plainly and with ZeRO: the same steps, the same weights within rounding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tasks.core.errors import UserError
from tasks.core.examples import make_example, write_rows
from tasks.core.launching.launch import LaunchConfig, launch
from tasks.core.models import load_model
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store, fetch
from tasks.problems.base import ProblemConfig
from tasks.reward_model import stage as reward
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.pairs import make_preference
from tasks.reward_model.stage import RewardTrainingInputs, RewardTrainingResult
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig, check_processes
from tasks.sft.shared_batches import SHARE, share, sharing
from tasks.sft.stage import TrainingInputs, TrainingResult
from tasks.sft.trainer_arguments import trainer_arguments
from tests.fsdp_on_cpus import write_fsdp_config
from tests.srun import allocate_two_machines

LAYOUTS = ("", "zero2", "zero3")
WITH_ZERO = [pytest.param(name, marks=pytest.mark.slow) if name else name for name in LAYOUTS]
ROWS = 9
"""Batches of 4: the last one of an epoch has a single row, so that one of two processes has none."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    examples = [
        make_example(f"Say {'a ' * number}word.", f"word {'b ' * (number % 4)}") for number in range(ROWS)
    ]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", examples)


def train(
    folder: Path,
    model: ModelRef,
    rows: DatasetRef,
    processes: int,
    *,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    fsdp: str = "",
    nodes: int = 1,
    **settings: Any,
) -> tuple[list[float], dict[str, Any]]:
    """The losses of all steps, and the weights. `fsdp` is accelerate's file."""
    config = TrainingConfig.model_validate(
        {"batch_size": 4, "epochs": 2, "learning_rate": 1e-4, "checkpoint_steps": 2, "adapter": {"rank": 4}}
        | settings
    )
    inputs = TrainingInputs(model=model, train=rows, problem=ProblemConfig(name="exact_match"))
    events: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        on_event(event)

    settings_of_launch = LaunchConfig(
        processes=processes, nodes=nodes, launcher="accelerate" if fsdp else "auto", config_file=fsdp
    )
    manifest = compute(sft.STAGE, config, inputs, Store(str(folder)), settings_of_launch, hear)
    losses = [event["train/loss"] for event in events if "train/loss" in event]
    files = fetch(TrainingResult.model_validate(manifest.result).model).glob("*.safetensors")
    return losses, {name: tensor for file in files for name, tensor in load_file(file).items()}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal within a fiftieth of what six steps of 1e-4 can move."""
    import torch

    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=0, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef, rows: DatasetRef) -> Any:
    return train(tmp_path_factory.mktemp("alone"), tiny_ref, rows, 1)


@pytest.mark.parametrize("layout", WITH_ZERO)
def test_two_processes_train_what_one_does(
    tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, alone: Any, layout: str
):
    losses, weights = train(tmp_path, tiny_ref, rows, 2, deepspeed=layout)
    assert len(losses) == 6
    assert losses == pytest.approx(alone[0], abs=1e-3)
    same(weights, alone[1])


@pytest.mark.slow
def test_rows_behind_their_shared_prefix_train_the_same(tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef):
    losses, weights = train(tmp_path / "1", tiny_ref, rows, 1, batching="random")
    ours, others = train(tmp_path / "2", tiny_ref, rows, 2, batching="shared_prefix")
    assert ours == pytest.approx(losses, abs=1e-3)
    same(others, weights)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_weights_as_well(tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, layout: str):
    losses, weights = train(tmp_path / "1", tiny_ref, rows, 1, method="full")
    ours, others = train(tmp_path / "2", tiny_ref, rows, 2, method="full", deepspeed=layout)
    assert ours == pytest.approx(losses, abs=1e-3)
    same(others, weights)


class Killed(Exception):
    """Ends a training in its middle."""


def interrupted(folder: Path, model: ModelRef, rows: DatasetRef, processes: int, **settings: Any) -> None:
    """The training of `train`, ended at its third step, when a checkpoint of the second is there."""

    def end(event: dict[str, Any]) -> None:
        if event.get("step", 0) >= 3:
            raise Killed

    with pytest.raises(Killed):
        train(folder, model, rows, processes, on_event=end, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_any_number_of_processes_goes_on_from_a_checkpoint(
    tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, before: int, after: int, layout: str
):
    long = {"epochs": 40}  # so that it has not ended by the time it is asked to
    undisturbed, expected = train(tmp_path / "undisturbed", tiny_ref, rows, 1, **long)
    long["deepspeed"] = layout
    interrupted(tmp_path / "here", tiny_ref, rows, before, **long)
    losses, weights = train(tmp_path / "here", tiny_ref, rows, after, **long)
    assert 0 < len(losses) < len(undisturbed) == 120
    assert losses == pytest.approx(undisturbed[-len(losses) :], abs=1e-3)
    same(weights, expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_fsdp_trains_what_one_process_does_and_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, method: str
):
    settings = {"method": method, "epochs": 40}
    undisturbed, expected = train(tmp_path / "alone", tiny_ref, rows, 1, **settings)
    settings["fsdp"] = write_fsdp_config(tmp_path / "fsdp.yaml")
    losses, weights = train(tmp_path / "undisturbed", tiny_ref, rows, 2, **settings)
    assert losses == pytest.approx(undisturbed, abs=1e-3)
    same(weights, expected)
    interrupted(tmp_path / "here", tiny_ref, rows, 2, **settings)
    losses, weights = train(tmp_path / "here", tiny_ref, rows, 2, **settings)
    assert 0 < len(losses) < len(undisturbed) == 120
    assert losses == pytest.approx(undisturbed[-len(losses) :], abs=1e-3)
    same(weights, expected)


@pytest.mark.slow
def test_a_checkpoint_of_fsdp_is_not_gone_on_from_without_it(
    tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef
):
    fsdp, long = write_fsdp_config(tmp_path / "fsdp.yaml"), {"epochs": 40}
    interrupted(tmp_path / "here", tiny_ref, rows, 2, fsdp=fsdp, **long)
    with pytest.raises(UserError, match="by FSDP among 2 processes") as error:
        train(tmp_path / "here", tiny_ref, rows, 1, **long)
    assert "remove" in error.value.mend
    interrupted(tmp_path / "there", tiny_ref, rows, 1, **long)
    with pytest.raises(UserError, match="cannot go on by FSDP among 2 processes"):
        train(tmp_path / "there", tiny_ref, rows, 2, fsdp=fsdp, **long)


def weights_held(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The numbers of a model's weights that each process holds behind a training of one step, and of all of them."""
    import torch
    from transformers import Trainer, TrainingArguments

    settings = TrainingConfig(method="full", max_steps=1, batch_size=2)
    arguments = TrainingArguments(
        **trainer_arguments(settings, out / "checkpoints")
    )  # before the model, as ever
    model = load_model(ModelRef.model_validate(inputs["model"]), precision="float32")
    total = sum(weight.numel() for weight in model.parameters())
    row = {"input_ids": [1, 2, 3], "labels": [1, 2, 3]}
    trainer = Trainer(model, arguments, train_dataset=[row] * 4)
    trainer.train()
    held = sum(weight.to_local().numel() for weight in trainer.model.parameters())
    everybody: list[Any] = [None] * trainer.args.world_size
    torch.distributed.all_gather_object(everybody, held)
    return {"held": everybody, "total": total}


@pytest.mark.slow
def test_fsdp_leaves_each_process_its_part_of_the_weights(tmp_path: Path, tiny_ref: ModelRef):
    settings = LaunchConfig(
        processes=2, launcher="accelerate", config_file=write_fsdp_config(tmp_path / "fsdp.yaml")
    )
    inputs = {"model": tiny_ref.model_dump(mode="json")}
    found = launch(
        f"{__name__}:weights_held", {}, inputs, tmp_path / "job", stage="weights", settings=settings
    )
    assert sum(found["held"]) == found["total"]
    assert max(found["held"]) < 0.6 * found["total"]


@pytest.mark.slow
def test_fsdp_over_two_machines_trains_what_one_process_does(
    tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, alone: Any, monkeypatch: pytest.MonkeyPatch
):
    allocate_two_machines(tmp_path, monkeypatch)
    file = write_fsdp_config(tmp_path / "fsdp.yaml")
    losses, weights = train(tmp_path / "store", tiny_ref, rows, 1, fsdp=file, nodes=2)
    assert losses == pytest.approx(alone[0], abs=1e-3)
    same(weights, alone[1])


@pytest.mark.slow
def test_parts_of_zero_are_not_read_by_another_stage(tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef):
    interrupted(tmp_path, tiny_ref, rows, 2, deepspeed="zero2")
    with pytest.raises(UserError, match="by ZeRO-2 among 2 processes") as error:
        train(tmp_path, tiny_ref, rows, 1)
    assert "remove" in error.value.mend


def rows_seen(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Of every process the rows of its batches, and what their mean counts."""
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    trainer = sharing(Trainer, mean=True)(
        model=torch.nn.Linear(1, 1),
        args=TrainingArguments(
            str(out),
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to="none",
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_dict({"number": list(range(ROWS))}),
        data_collator=lambda rows: {"numbers": torch.tensor([row["number"] for row in rows])},
    )
    seen = [(batch["numbers"].tolist(), float(batch[SHARE])) for batch in trainer.get_train_dataloader()]
    everybody: list[Any] = [None] * trainer.args.world_size
    torch.distributed.all_gather_object(everybody, seen)
    return {"seen": everybody}


def test_every_process_takes_its_own_rows_of_every_batch(tmp_path: Path):
    found = launch(
        f"{__name__}:rows_seen", {}, {}, tmp_path, stage="rows", settings=LaunchConfig(processes=2)
    )
    first, second = found["seen"]
    assert [len(rows) for rows, _ in first] == [2, 2, 1]
    assert [len(rows) for rows, _ in second] == [2, 2, 1]
    assert second[-1] == [first[-1][0], 0.0]  # a row for the form's sake, which counts nothing
    assert first[-1][1] == 2.0
    counted = [row for rows, counts in first + second for row in rows if counts]
    assert sorted(counted) == list(range(ROWS))


def test_more_processes_than_rows_of_a_batch_are_refused():
    check_processes(TrainingConfig(batch_size=2), 2, field="training")
    with pytest.raises(UserError, match="3 processes share a batch of 2 rows") as error:
        check_processes(TrainingConfig(batch_size=2), 3, field="training")
    assert error.value.field == "launch.processes"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero4", "there is no DeepSpeed configuration zero4"),
        ("broken.json", "no DeepSpeed configuration with"),
    ],
)
def test_a_layout_that_there_is_not_is_refused(tmp_path: Path, name: str, words: str):
    (tmp_path / "broken.json").write_text('{"zero_optimization": 3}')
    address = str(tmp_path / name) if name.endswith("json") else name
    with pytest.raises(UserError, match=words) as error:
        check_processes(TrainingConfig(deepspeed=address), 1, field="reward_model")
    assert error.value.field == "reward_model.deepspeed"


@pytest.mark.parametrize(
    ("rows_of_batch", "processes", "parts", "counts"),
    [
        (4, 2, [[0, 2], [1, 3]], [1.0, 1.0]),
        (
            3,
            2,
            [[0, 2], [1]],
            [4 / 3, 2 / 3],
        ),  # the mean over 2 rows and that over 1, of which the mean is taken
        (1, 2, [[0], [0]], [2.0, 0.0]),
    ],
)
def test_every_row_of_a_batch_is_taken_once(rows_of_batch, processes, parts, counts):
    shares = [share(range(rows_of_batch), rank, processes) for rank in range(processes)]
    assert [part for part, _ in shares] == parts
    assert [counted for _, counted in shares] == pytest.approx(counts)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [*LAYOUTS, "fsdp"])
def test_a_reward_model_as_well(tmp_path: Path, tiny_ref: ModelRef, layout: str):
    """Batches of 4 pairs, the last of an epoch of 1: the loss is a mean over pairs, however they are shared."""
    pairs = [
        make_preference([{"role": "user", "content": f"Number {n}? {'a ' * n}"}], f"It is {n}.", "No.")
        for n in range(5)
    ]
    inputs = RewardTrainingInputs(model=tiny_ref, train=write_rows(tmp_path / "pairs.jsonl", pairs))
    settings = {"launcher": "accelerate", "config_file": write_fsdp_config(tmp_path / "fsdp.yaml")}
    fsdp, zero = layout == "fsdp", "" if layout == "fsdp" else layout
    found = []
    for launched, deepspeed in (
        (LaunchConfig(), ""),
        (LaunchConfig(processes=2, **(settings if fsdp else {})), zero),
    ):
        config = RewardTrainingConfig(batch_size=4, epochs=2, learning_rate=1e-3, deepspeed=deepspeed)
        losses: list[float] = []

        def hear(event: dict[str, Any], losses: list[float] = losses) -> None:
            losses += [event["train/loss"]] if "train/loss" in event else []

        manifest = compute(
            reward.STAGE,
            config,
            inputs,
            Store(str(tmp_path / str(launched.processes))),
            launched,
            hear,
        )
        files = fetch(RewardTrainingResult.model_validate(manifest.result).model).glob("*.safetensors")
        found.append((losses, {name: tensor for file in files for name, tensor in load_file(file).items()}))
    (alone, weights), (together, others) = found
    assert len(alone) == len(together) == 4
    assert together == pytest.approx(alone, abs=1e-3)
    assert max(float(weights[name].abs().max()) for name in weights if "lora_B" in name) > 1e-3
    same(others, weights)
