"""The definition that everything is held against: one sample, one backward pass, the norm of every gradient.

The sample is the first of a batch of two copies: for a batch of one, torch 2.13 on a CPU differentiates batch
normalisation in eval mode wrongly where the gradient is not contiguous.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def loop(model: nn.Module, images: Tensor, loss: str, targets: Tensor | None = None, detach: bool = False) -> Tensor:
    """[N, tensors], float64 as the model; "expected" with p attached to the graph unless `detach`."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def norms(value: Tensor) -> Tensor:
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.stack([value.new_zeros(()) if g is None else g.norm() for g in gradients])

    rows = []
    for n, image in enumerate(images):
        logits = model(torch.stack([image, image]))[:1]
        p = logits.softmax(dim=1)
        every = -F.log_softmax(logits, dim=1)  # CE(·, y) for each class y
        if loss == "entropy":
            rows.append(norms(torch.special.entr(p).sum(dim=1).mean()))
        elif loss == "expected":
            rows.append(norms(((p.detach() if detach else p) * every).sum(dim=1).mean()))
        elif loss == "label":
            assert targets is not None
            total = F.cross_entropy(logits, targets[n][None], ignore_index=-1, reduction="sum")
            rows.append(norms(total / max(1, int((targets[n] >= 0).sum()))))
        else:
            weight = p.detach().reshape(p.shape[1], -1).mean(dim=1)
            rows.append(sum(w * norms(every[:, y].mean()) for y, w in enumerate(weight)))
    return torch.stack(rows)
