"""What the trainings of a student and of a reward model have in common: fields, their order, and the adapter."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from tasks.core.config import identity
from tasks.core.errors import UserError
from tasks.reward_model.config import RewardTrainingConfig
from tasks.sft.adapter import AdapterConfig, lora_config
from tasks.sft.config import TrainingConfig
from tasks.sft.optimiser_config import OptimiserConfig, placed
from tasks.sft.trainer_arguments import trainer_arguments

COMMON = "method learning_rate epochs max_steps batch_size gradient_accumulation schedule warmup weight_decay"


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            TrainingConfig,
            "max_length too_long batching weighting precision gradient_checkpointing select checkpoint_steps deepspeed",
        ),
        (
            RewardTrainingConfig,
            "max_length too_long centre batching precision gradient_checkpointing checkpoint_steps deepspeed"
            " confidence resamples",
        ),
    ],
)
def test_fields_stand_beside_what_they_belong_to_in_forms_and_files(config, names):
    order = [*COMMON.split(), *names.split(), "seed", "adapter"]
    assert list(config.model_json_schema()["properties"]) == order
    assert list(config.model_fields) == order
    assert list(config().model_dump()) == order
    assert all(field.description for field in config.model_fields.values())


def test_a_placed_field_is_a_field_like_any_other():
    @placed(between="epochs", after_it="between")
    class Own(OptimiserConfig):
        """A training."""

        after_it: int = Field(2, ge=0)
        """Second."""
        between: int = Field(1, ge=0)
        """First."""
        last: int = 3
        """Not placed."""

    assert list(Own.model_fields)[2:5] == ["epochs", "between", "after_it"]
    assert list(Own.model_fields)[-1] == "last"
    config = Own(between=5, seed=4)
    assert Own.model_validate(config.model_dump()) == config
    assert Own.model_validate_json(config.model_dump_json()) == config
    assert identity(config)["between"] == 5
    assert "checkpoint_steps" not in identity(config)
    for wrong in ({"between": -1}, {"epochs": 0}, {"betwen": 1}):
        with pytest.raises(ValidationError):
            Own(**wrong)


def test_defaults_differ_where_the_trainings_do():
    student, reward = TrainingConfig(), RewardTrainingConfig()
    assert (student.learning_rate, student.epochs) == (2e-4, 3.0)
    assert (reward.learning_rate, reward.epochs) == (1e-4, 1.0)
    TrainingConfig(batching="packed")
    with pytest.raises(ValidationError):
        RewardTrainingConfig(batching="packed")


def test_the_trainer_is_told_what_the_configuration_says(tmp_path):
    from transformers import TrainingArguments

    config = TrainingConfig(
        learning_rate=0.5,
        max_steps=0,
        epochs=2.5,
        batch_size=3,
        seed=9,
        checkpoint_steps=7,
        precision="float32",
    )
    told = TrainingArguments(**trainer_arguments(config, tmp_path))
    assert (told.learning_rate, told.max_steps, told.num_train_epochs) == (0.5, -1, 2.5)
    assert (told.per_device_train_batch_size, told.seed, told.data_seed, told.save_steps) == (3, 9, 9, 7)
    assert (told.bf16, told.fp16, told.train_sampling_strategy) == (False, False, "group_by_length")
    assert Path(told.output_dir) == tmp_path


@pytest.fixture(scope="module")
def network(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model)


@pytest.mark.parametrize("names", ["q_proj, query", "q_proj,self_attn", "q_proj,roj", ""])
def test_a_module_that_the_model_has_not_is_refused_with_those_it_has(network, names):
    with pytest.raises(UserError, match="no linear module named") as caught:
        lora_config(AdapterConfig(modules=names), network, field="training.adapter.modules")
    assert caught.value.field == "training.adapter.modules"
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, or all-linear" in caught.value.mend


@pytest.mark.parametrize(
    ("names", "count"), [("all-linear", 14), ("q_proj, v_proj", 4), ("layers.1.self_attn.q_proj", 1)]
)
def test_the_named_modules_get_an_adapter(network, names, count):
    from copy import deepcopy

    from peft import get_peft_model

    config = AdapterConfig(modules=names, rank=3, alpha=5)
    model = get_peft_model(deepcopy(network), lora_config(config, network, field="x"))
    adapted = [value for name, value in model.named_parameters() if "lora_A" in name]
    assert len(adapted) == count
    assert {value.shape[0] for value in adapted} == {3}


@pytest.mark.parametrize(
    ("settings", "fault"), [({"deepspeed": "zero3"}, "both"), ({"method": "qlora"}, "4-bit")]
)
def test_fsdp_takes_no_weights_that_are_shared_otherwise_or_have_4_bits(
    settings, fault, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=fault) as error:
        trainer_arguments(TrainingConfig(**settings), tmp_path)
    assert error.value.field == "launch.config_file"
