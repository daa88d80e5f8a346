"""The mean and spread of all scores seen so far, to bring scores of an arbitrary scale to a known one."""

from typing import TYPE_CHECKING

from tasks.ppo.masked import sum_over_processes

if TYPE_CHECKING:
    from torch import Tensor


class RunningMoments:
    """Mean and unbiased variance over all batches, merged pairwise (Chan, Golub and LeVeque 1979), in double precision;
    of several processes, over the batches of all."""

    def __init__(self) -> None:
        self.count, self.mean, self.deviations = 0.0, 0.0, 0.0

    @property
    def std(self) -> float:
        """The standard deviation; 0 before two numbers have been seen."""
        return float((self.deviations / (self.count - 1)) ** 0.5) if self.count > 1 else 0.0

    def add(self, numbers: "Tensor") -> None:
        """Take another batch of finite numbers into account."""
        import torch

        numbers = numbers.detach().double().cpu()
        here = _communicable(torch.tensor([float(len(numbers)), float(numbers.sum())], dtype=torch.float64))
        count, total = sum_over_processes(here).tolist()
        if not count:
            return
        mean = total / count
        spread = _communicable((numbers - mean).square().sum())
        deviations = float(sum_over_processes(spread))
        both, gap = self.count + count, mean - self.mean
        self.deviations += deviations + gap * gap * self.count * count / both
        self.mean += gap * count / both
        self.count = both

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` needs to go on from here."""
        return {"count": self.count, "mean": self.mean, "deviations": self.deviations}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from where another one was."""
        self.count, self.mean, self.deviations = state["count"], state["mean"], state["deviations"]


def _communicable(numbers: "Tensor") -> "Tensor":
    """On a device that the processes can send from: NCCL knows GPUs alone."""
    import torch.distributed as dist

    on_gpu = dist.is_available() and dist.is_initialized() and dist.get_backend() == "nccl"
    return numbers.cuda() if on_gpu else numbers
