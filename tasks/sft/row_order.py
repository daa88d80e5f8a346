"""The order in which a training sees its rows: decided by seed and epoch alone, so that a resumed one sees the same."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl import SFTTrainer


def repeatable(trainer: type["SFTTrainer"]) -> type["SFTTrainer"]:
    """The trainer with an order by length that does not change when training is resumed.

    transformers draws it from the global random state, which in a resumed epoch is not what it was when the epoch
    began: some rows would come twice and others never.
    """
    import torch
    from transformers import TrainerCallback
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class SeedEpoch(TrainerCallback):
        """Seeds the sampler's generator before an epoch's order is drawn."""

        def __init__(self, generator: torch.Generator) -> None:
            self.generator = generator

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.generator.manual_seed(args.data_seed * 1_000_003 + int(state.epoch or 0))

    class Repeatable(trainer):
        def _get_train_sampler(self, *arguments: Any, **keywords: Any) -> Any:
            sampler = super()._get_train_sampler(*arguments, **keywords)
            if isinstance(sampler, LengthGroupedSampler):
                sampler.generator = torch.Generator()
                self.add_callback(SeedEpoch(sampler.generator))
            return sampler

    return Repeatable
