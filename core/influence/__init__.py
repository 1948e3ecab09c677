"""What a sample's label does to the loss on held-out images, to first order, and the bounds of it (Wang et al., AAAI 2022).

    vector = loss_gradient(model, held_out_images, held_out_labels)
    solution = inverse_hvp(model, training_images, training_labels, vector, damping=0.01, weight_decay=5e-4)
    terms = influence(model, images, solution, n_labels=len(training_images), targets=labels, before=earlier_model)

`influence` gives all four terms of the paper, Target (Eq. 2), Approx-1 (Eq. 3), Approx-2 (Eq. 4) and Approx-3 (Eq. 5), for the
true label and for what can be known before it.
"""

from core.influence.gradients import gradient_dots, loss_gradient
from core.influence.passes import Vector
from core.influence.solve import Curvature, Solution, inverse_hvp
from core.influence.terms import Influence, influence

__all__ = [
    "Curvature",
    "Influence",
    "Solution",
    "Vector",
    "gradient_dots",
    "influence",
    "inverse_hvp",
    "loss_gradient",
]
