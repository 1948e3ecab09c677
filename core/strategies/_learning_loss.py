"""The module of learning loss: Yoo & Kweon, CVPR 2019."""

import torch
from torch import Tensor, nn

HIDDEN = 128  # of each stage's branch, as in the paper
MARGIN = 1.0  # ξ of its Eq. 2
DETACHED = 0.6  # share of the training after which the loss module no longer shapes the model


class LossPrediction(nn.Module):
    """Predicts a sample's loss from the outputs of the model's stages: mean over positions, a branch each, one line."""

    def __init__(self, stage_widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU()) for width in stage_widths)
        self.out = nn.Linear(HIDDEN * len(stage_widths), 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Predicted losses [n], known up to a monotone map."""
        parts = [branch(x.mean(dim=(2, 3))) for branch, x in zip(self.branches, stages, strict=True)]
        return self.out(torch.cat(parts, dim=1))[:, 0]

    def loss(self, stages: list[Tensor], losses: Tensor, share: float) -> Tensor:
        """Hinge on the order of pairs of predicted losses (Eq. 2), a mean over the batch's disjoint pairs."""
        predicted = self([x.detach() for x in stages] if share >= DETACHED else stages)
        half = len(losses) // 2
        first, second = slice(0, half), slice(half, 2 * half)
        order = torch.sign(losses[first] - losses[second])
        return (
            (MARGIN - order * (predicted[first] - predicted[second])).clamp_min(0).mean()
            if half
            else predicted.sum() * 0
        )
