"""One batch for all processes: each takes its part of it, so that a training sees the same rows in the same order, and
makes the same steps, whatever the number of processes.

accelerate deals whole batches to processes: two of them make a batch twice as large, and fill up the last one with rows
of the first.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer

SHARE = "share"
"""Key of a batch: by what the mean over this process's rows is multiplied, so that the mean over all processes becomes
the mean over all rows."""


def share(rows: Sequence[Any], rank: int, processes: int) -> tuple[list[Any], float]:
    """The rows of a batch that process `rank` takes, and what the mean over them counts; where rows are fewer than
    processes some process takes a row that counts nothing."""
    own = list(rows[rank::processes])
    return (own or [rows[0]]), len(own) * processes / len(rows)


def check_share(batch_size: int, processes: int, *, field: str) -> None:
    """Raise UserError when there is no row for some process in any batch."""
    if processes > batch_size:
        raise UserError(
            f"{processes} processes share a batch of {batch_size} rows: some would have nothing to do",
            field=field,
            mend=f"take at most {batch_size} processes, or raise the batch size",
        )


def sharing(trainer: type["Trainer"], *, mean: bool) -> type["Trainer"]:
    """The trainer whose `per_device_train_batch_size` is the batch of all processes together.

    With `mean` its loss is a mean over the rows, as a reward model's is; else one over all processes' tokens, as TRL's
    fine-tuning has it, in which a part of a batch counts as many tokens as it has.
    """
    from accelerate.data_loader import BatchSamplerShard  # type: ignore[import-untyped]

    class Sharing(trainer):
        data_collator: Any

        def get_train_dataloader(self) -> Any:
            processes = self.args.world_size
            if processes == 1:
                return super().get_train_dataloader()
            # Given to the loader as it is made: accelerate's keeps another within it, which is what reads the rows.
            collate = self.data_collator
            self.data_collator = _collated(collate, self.args.process_index, processes, mean)
            try:
                loader = super().get_train_dataloader()
            finally:
                self.data_collator = collate
            shard = loader.batch_sampler
            assert isinstance(shard, BatchSamplerShard)
            # Every process hears of every row, and of none twice.
            shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False
            return loader

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **keywords: Any) -> Any:
            counts = inputs.pop(SHARE, None)
            found = super().compute_loss(model, inputs, *arguments, **keywords)
            if counts is None:
                return found
            return (found[0] * counts, *found[1:]) if isinstance(found, tuple) else found * counts

    return Sharing


def _collated(
    collate: Callable[[list[Any]], dict[str, Any]], rank: int, processes: int, mean: bool
) -> Callable[[list[Any]], dict[str, Any]]:
    import torch

    def collated(rows: list[Any]) -> dict[str, Any]:
        own, counts = share(rows, rank, processes)
        batch = collate(own)
        if mean:
            batch[SHARE] = torch.tensor(counts)
        elif not counts:
            batch["labels"] = torch.full_like(batch["labels"], -100)
        return batch

    return collated
