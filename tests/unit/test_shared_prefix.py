"""Rows in one sequence behind the beginning that they share: what each sees, and that nothing is learned otherwise."""

import pytest
import torch

from tasks.core.errors import UserError
from tasks.core.models import load_model
from tasks.sft.config import TrainingConfig, check
from tasks.sft.shared_prefix import behind_shared_prefix, check_model, shared_length


def row(prompt: list[int], answer: list[int], **more) -> dict:
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer} | more


TWO = [row([7, 8, 1, 2], [5, 9]), row([7, 8, 3], [6, 9])]


def test_the_beginning_stands_once_and_every_row_sees_it_and_itself():
    batch = behind_shared_prefix(TWO)
    assert batch["input_ids"].tolist() == [[7, 8, 1, 2, 5, 9, 3, 6, 9]]
    assert batch["labels"].tolist() == [[-100, -100, -100, -100, 5, 9, -100, 6, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 2, 3, 4]]
    assert batch["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 1, 1, 1],
    ]
    assert "weight" not in batch


def test_a_token_has_the_weight_of_its_row():
    weighted = [TWO[0] | {"weight": 0.5}, TWO[1] | {"weight": 1.5}]
    assert behind_shared_prefix(weighted)["weight"].tolist() == [[0, 0.5, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5]]


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        (
            [row([7, 8, 1], [5]), row([7, 8, 1], [5])],
            2,
        ),  # the last token of a prompt predicts the answer's first
        ([row([7, 8], [1, 5]), row([7, 8, 1], [5])], 1),
        ([row([7, 8], [5])], 1),
        ([row([1], [5]), row([1], [6])], 0),
        ([row([], [7, 8, 5]), row([], [7, 8, 6])], 0),  # texts: every token counts
        ([row([7, 8, 1], [5]), row([9, 8, 1], [5])], 0),
    ],
)
def test_how_much_is_shared(rows, length):
    assert shared_length(rows) == length


def test_a_text_is_not_predicted_by_the_text_before():
    batch = behind_shared_prefix([row([], [7, 8]), row([], [7, 5])])
    assert batch["labels"].tolist() == [[-100, 8, -100, 5]]


@pytest.mark.parametrize(
    "prompts", [((7, 8, 1, 2), (7, 8, 3), (7, 8, 4, 4, 4)), ((), (), ()), ((1,), (2, 3), (4,))]
)
def test_loss_and_gradients_are_those_of_the_rows_apart(tiny_ref, prompts):
    rows = [row(list(prompt), [20 + at, 30, 2]) for at, prompt in enumerate(prompts)]
    model = load_model(tiny_ref)
    model.zero_grad()
    total = sum(sum(label != -100 for label in each["labels"][1:]) for each in rows)
    apart = 0.0
    for each in rows:
        count = sum(label != -100 for label in each["labels"][1:])
        loss = model(
            input_ids=torch.tensor([each["input_ids"]]), labels=torch.tensor([each["labels"]])
        ).loss * (count / total)
        loss.backward()
        apart += float(loss.detach())
    gradients = {
        name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }
    model.zero_grad()
    together = model(**behind_shared_prefix(rows)).loss
    together.backward()
    assert float(together.detach()) == pytest.approx(apart, rel=1e-5)
    assert max(float(value.abs().max()) for value in gradients.values()) > 1e-3
    for name, value in model.named_parameters():
        if value.grad is not None:
            assert torch.allclose(value.grad, gradients[name], atol=1e-5), name


def test_a_model_whose_rows_would_see_one_another_is_refused(tiny_ref):
    rows = [row([7, 8, 1], [5, 9]), row([7, 8, 3], [6, 9])]
    model = load_model(tiny_ref)
    check_model(model, [each | {"weight": 1.0} for each in rows], field="training.batching")

    class Blind(torch.nn.Module):
        """Takes no notice of the mask, as a recurrent network."""

        config, device = model.config, model.device

        def forward(self, attention_mask=None, **inputs):
            return model(**inputs)

    with pytest.raises(UserError, match=r"model of the kind \w+: the loss of a row is") as caught:
        check_model(Blind(), rows, field="training.batching")
    assert caught.value.field == "training.batching"


def test_one_row_and_rows_without_an_answer_are_checked_too(tiny_ref):
    model = load_model(tiny_ref)
    check_model(model, [row([7, 8, 1], [5, 9])], field="training.batching")
    check_model(model, [row([], [5]), row([], [5, 9])], field="training.batching")


def test_deepspeed_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match="without DeepSpeed") as caught:
        check(TrainingConfig(batching="shared_prefix", deepspeed="zero2"), has_validation=False, processes=2)
    assert caught.value.field == "training.batching"
