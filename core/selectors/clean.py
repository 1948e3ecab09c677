"""Plain training on the reference labels: it knows what it should find.

Bernhardt et al. 2022, Fig. 3, call it the model upper bound. It bounds no selector with another embedding.
"""

from core.selectors import Trainer, vanilla

TRAINER = Trainer(vanilla.build, vanilla.fit, labels="reference")
