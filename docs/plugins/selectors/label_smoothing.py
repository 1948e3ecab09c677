"""Label smoothing against wrong labels: Lukasik et al., "Does label smoothing mitigate label noise?", ICML 2020."""

from core.described import BLUE
from core.selectors import Selector, vanilla

SMOOTHING = 0.1  # probability that the targets spread over all classes


def fit(model, images, rows, labels, settings, *, seed, noise=0.0, callbacks=()):
    """Train in place on the rows with `labels` int [n]; returns the mean loss of the last epoch in nats."""
    import torch
    from torch.nn import functional as F

    from core.models.forward import place
    from core.selectors import fitting

    place(model, images.device).train()
    given = torch.from_numpy(labels).to(images.device)

    def loss_of(x, batch, epoch, done):
        return F.cross_entropy(model(x).float(), given[batch], label_smoothing=SMOOTHING)

    return fitting.run([model], images, rows, settings, loss_of, seed=seed, callbacks=callbacks)


SELECTOR = Selector(
    name="label-smoothing",
    title="Label smoothing",
    reference="Lukasik et al. 2020",
    build=vanilla.build,
    fit=fit,
    colour=BLUE,
)
