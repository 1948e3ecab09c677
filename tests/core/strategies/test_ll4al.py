"""The loss-prediction module."""

import torch

from core.strategies._learning_loss import LossPrediction


def stages(n):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, width, 3, 3, generator=generator, requires_grad=True) for width in (2, 4)]


def test_the_loss_is_the_hinge_on_pairs():
    module, x, losses = LossPrediction((2, 4)), stages(5), torch.tensor([0.1, 2.0, 0.7, 0.3, 9.0])
    p = module(x)
    by_hand = (torch.relu(1 - torch.sign(losses[0] - losses[2]) * (p[0] - p[2])) + torch.relu(1 - (p[1] - p[3]))) / 2
    torch.testing.assert_close(module.loss(x, losses, 0.0), by_hand)


def test_the_model_is_left_alone_after_three_fifths_of_the_training():
    for share, shaped in ((0.59, True), (0.6, False), (1.0, False)):
        module, x = LossPrediction((2, 4)), stages(4)
        module.loss(x, torch.arange(4.0), share).backward()
        assert (x[0].grad is not None) == shaped
        assert module.out.weight.grad is not None


def test_it_learns_to_order_losses():
    torch.manual_seed(0)
    module, x = LossPrediction((2, 4)), [s.detach() for s in stages(64)]
    losses = x[0].mean(dim=(2, 3))[:, 0]
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        module.loss(x, losses, 1.0).backward()
        optimiser.step()
    assert torch.corrcoef(torch.stack([module(x), losses]))[0, 1] > 0.8


def test_one_sample_makes_no_pair():
    assert LossPrediction((2, 4)).loss(stages(1), torch.ones(1), 0.0).item() == 0.0
