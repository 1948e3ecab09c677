"""What VAAL and SRAAL share."""

import numpy as np
import pytest
import torch

from core.strategies import _adversarial as adversarial
from core.strategies import sraal
from tests.core.strategies.test_strategies import FakePool, M, N


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (9, 64), (1, 1)])
def test_images_come_back_in_their_size(size):
    vae = adversarial.VariationalAutoencoder(torch.Size((3, *size)), 4)
    mean, log_variance = vae.encode(torch.randn(2, 3, *size))
    assert mean.shape == log_variance.shape == (2, adversarial.LATENT)
    assert vae.decode(mean).shape == (2, 3, *size)


class TwoKinds(FakePool):
    """Labelled images are bright; the first half of the unlabelled ones is bright as well, the other half dark."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.steps, self.width, self.batch_size = 60, 4, 12

    def images(self, positions):
        level = torch.where(torch.arange(N) < N // 2, 1.0, -1.0)
        return (super().images(np.arange(N)) * 0.1 + level[:, None, None, None])[positions]

    def labelled_images(self, positions):
        return (super().labelled_images(np.arange(M)) * 0.1 + 1.0)[positions]


def test_unlike_the_labelled_images_come_first():
    found = adversarial.unfamiliarity(TwoKinds())
    assert ((found > 0) & (found < 1)).all()
    assert found[N // 2 :].mean() > found[: N // 2].mean()


def test_the_discriminator_takes_sure_samples_for_labelled():
    sure = torch.where(torch.arange(N) % 2 == 0, 0.0, 1.0)
    pool = TwoKinds()
    found = adversarial.unfamiliarity(
        pool, uncertainty=sure, embeddings=(sure[:, None].repeat(1, 6), torch.zeros(M, 6))
    )
    assert found[1::2].mean() > found[::2].mean()


def test_uncertainty_is_one_when_uniform_and_zero_when_sure():
    p = np.array([[0.25] * 4, [1.0, 0, 0, 0], [0.7, 0.1, 0.1, 0.1], [0.7, 0.3, 0, 0]])
    found = sraal.uncertainty(p)
    np.testing.assert_allclose(found[:3], [1.0, 0.0, 0.3])
    assert found[3] > found[2]  # a rival class
