"""Where in the network a sample's gradient lies: one image, one backward pass."""

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from core.engine.learner import Learner, weights
from core.gradnorm import gradient_norms
from core.runs.run import Run
from data.dataset import ImageDataset
from data.errors import UserError


def layer_norms(run: Run, dataset: ImageDataset, cycle: int, sample_id: str) -> pd.DataFrame:
    """L2 norms of the gradient of the entropy H(p) of one sample, one row a parameter tensor: parameter, shape, norm.

    The model is that of the cycle; with folds, the one that has not seen the sample. The sum of all norms is the entropy
    gradient norm (Wang et al. 2022, Eq. 7). Raises `UserError` for an unknown sample, and where the weights are not kept.
    """
    if not run.config.trains:
        raise UserError(
            f"Run {run.id} ranks by imported predictions, which have no gradients: choose a run that trains its model."
        )
    if sample_id not in dataset.ids:
        raise UserError(f"Run {run.id} has no sample {sample_id[:100]!r}: `export --table ranking` lists them.")
    row = dataset.ids.index(sample_id)
    learner = Learner(run.config, dataset, run.path.parent)
    trained = 0 if run.config.static else cycle
    part = (int(learner.fold_of[row]), 0)
    try:
        scorer = learner.scorers(run.cycle_path(trained), trained)[part]
    except (OSError, SafetensorError) as error:
        file = weights(run.cycle_path(trained), part)
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no readable weights ({file.name}), which its gradients need: choose another "
            "run, or restore the file."
        ) from error
    _, x = next(iter(learner.pool.batches(np.array([row]), 1)))
    norms = gradient_norms(scorer.model, x, loss="entropy", reduction="none")[0].double().cpu().numpy()
    named = [(name, p) for name, p in scorer.model.named_parameters() if p.requires_grad]
    shapes = [" × ".join(map(str, parameter.shape)) for _, parameter in named]
    return pd.DataFrame({"parameter": [name for name, _ in named], "shape": shapes, "norm": norms})
