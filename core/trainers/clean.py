"""Plain training on the right labels: the model upper bound of Bernhardt et al. 2022, Fig. 3. It knows what it should find."""

from core.trainers import Trainer, vanilla

TRAINER = Trainer(vanilla.build, vanilla.fit, labels="reference")
