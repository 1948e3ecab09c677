"""What a strategy may ask of the unlabelled samples of a cycle."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Pool(Protocol):
    """The n unlabelled samples of a cycle and the model trained in it."""

    seed: int
    """Differs between runs and cycles; the same on resume."""

    def __len__(self) -> int:
        """n."""

    def probs(self) -> NDArray[np.float64]:
        """Posterior [n, K]."""

    def gradient_norms(self, loss: str) -> NDArray[np.float64]:
        """Gradient norms [n] over all parameters, `core.gradnorm.gradient_norms` with this loss."""
