"""What `elr` keeps of each sample."""

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """The running average t of each sample's posterior, [n, C]: a module, so that a checkpoint keeps it."""

    targets: Tensor

    def __init__(self, n: int, n_classes: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.register_buffer("targets", torch.zeros(n, n_classes))

    def updated(self, batch: Tensor, p: Tensor) -> Tensor:
        """The average of a batch, [b, C], with its posterior p of now."""
        now = p / p.sum(dim=1, keepdim=True)
        self.targets[batch] = self.beta * self.targets[batch] + (1 - self.beta) * now
        return self.targets[batch]
