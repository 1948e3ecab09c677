"""Co-teaching: what each network learns from, and how much is forgotten when."""

import pytest
import torch

from core.selectors import Shape, co_teaching
from data.errors import UserError


def test_each_network_learns_from_what_the_other_finds_small():
    first = torch.tensor([5.0, 1.0, 2.0, 9.0], requires_grad=True)
    second = torch.tensor([1.0, 8.0, 3.0, 2.0], requires_grad=True)
    loss = co_teaching.exchanged(first, second, rate=0.5)
    # small for the second: samples 0 and 3; small for the first: 1 and 2
    assert float(loss.detach()) == pytest.approx((5 + 9) / 2 + (8 + 3) / 2)
    loss.backward()
    assert first.grad.tolist() == [0.5, 0, 0, 0.5]
    assert second.grad.tolist() == [0, 0.5, 0.5, 0]


def test_the_forget_rate_grows_over_ten_epochs_and_stays():
    rates = [co_teaching.forget_rate(0.3, epoch, epochs=100) for epoch in range(30)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.15)
    assert rates[10:] == [pytest.approx(0.3)] * 20


def test_a_short_training_reaches_the_forget_rate_in_its_middle():
    assert co_teaching.forget_rate(0.2, 3, epochs=6) == pytest.approx(0.2)


@pytest.mark.parametrize("noise", [-0.1, 1.0, float("nan")])
def test_a_forget_rate_outside_zero_to_one_is_refused(noise):
    with pytest.raises(UserError, match="forget rate"):
        co_teaching.forget_rate(noise, 0, epochs=10)


def test_a_pair_says_the_mean_of_both_posteriors():
    pair = co_teaching.build(Shape("small-cnn", 4, 1, 3, seed=0)).eval()
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        mean = (pair.first(x).softmax(dim=1) + pair.second(x).softmax(dim=1)) / 2
        torch.testing.assert_close(pair(x).softmax(dim=1), mean)
    assert not torch.equal(pair.first.head.weight, pair.second.head.weight)
