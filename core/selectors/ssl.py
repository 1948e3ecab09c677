"""Self-supervised: SimCLR on the images alone, Chen et al., ICML 2020, then a head on the embedding it learnt.

The views are kornia's, the contrastive loss pytorch-metric-learning's; both are imported when they are needed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from core.described import SKY
from core.selectors import Selector, Settings, vanilla

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from core.models.architectures import Model
    from core.models.batches import Images
    from core.selectors.fitting import Callback

TEMPERATURE = 0.2  # of NT-Xent: lower than the paper's 0.5, which takes hundreds of epochs to pull views together
# Of the images' side that views have: an epoch takes a third of the time, and after equal time the embedding knows more
SHARE = 0.5
LEAST = 16  # pixels of a view's side, unless images are smaller still: networks halve it three times
PROJECTION = 128  # size of the space in which views are compared
BATCH = 128  # a larger one has more to tell views apart from, and fewer steps: on 5,000 images steps count more


def prepare(
    model: "Model",
    images: "Images",
    settings: Settings,
    *,
    seed: int,
    callbacks: "Sequence[Callback]" = (),
) -> None:
    """Train the embedding of `model` in place for `settings.epochs` epochs, without any label.

    Two random views of an image are to lie close together, and far from those of all others; the projection head that
    compares them is thrown away. Raises as `core.selectors.fitting.run`.
    """
    import torch
    from pytorch_metric_learning.losses import SelfSupervisedLoss, SupConLoss
    from torch import nn

    from core.models.architectures import headed
    from core.models.forward import place
    from core.selectors import fitting

    place(model, images.device).train()
    width = headed(model, "Self-supervised learning").head.in_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projection = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, PROJECTION)
        )
    projection.to(images.device).train()
    # With one positive each, SupCon is NT-Xent; the library's class of that name compares every pair with every other, which
    # took ten times as long as the rest of the training
    contrast = SelfSupervisedLoss(SupConLoss(temperature=TEMPERATURE))
    views = Views(images)

    def loss_of(x: "Tensor", batch: "Tensor", epoch: int, done: float) -> "Tensor":
        first, second = projection(model.embed(x)).float().chunk(2)
        return cast("Tensor", contrast(first, second))

    schedule = Settings(
        epochs=settings.epochs,
        lr=settings.lr,
        batch_size=min(BATCH, max(2, len(images) // 4)),
        schedule="one-cycle",
        nesterov=settings.nesterov,
    )
    fitting.run(
        [model, projection],
        images,
        np.arange(len(images)),
        schedule,
        loss_of,
        seed=seed,
        callbacks=callbacks,
        views=lambda x, _, generator: views(x, generator),
    )


class Views:
    """Two random views of every image of a normalised batch, one batch after the other: [n, C, H, W] → [2n, C, h, w].

    Views are smaller than the images: `SHARE` of their sides, at least `LEAST` pixels or the image's own side.
    """

    def __init__(self, images: "Images") -> None:
        from kornia import augmentation
        from torch import nn

        height, width, channels = images.array.shape[1:]
        size = tuple(max(round(SHARE * side), min(LEAST, side)) for side in (height, width))
        self.mean, self.std = images.mean, images.std
        steps: list[nn.Module] = [
            augmentation.RandomResizedCrop(size, scale=(0.2, 1.0)),
            augmentation.RandomHorizontalFlip(),
        ]
        if channels == 3:
            steps += [augmentation.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=0.8), augmentation.RandomGrayscale(p=0.2)]
        else:
            steps += [augmentation.RandomBrightness((0.6, 1.4), p=0.8), augmentation.RandomContrast((0.6, 1.4), p=0.8)]
        self.steps = nn.Sequential(*steps)

    def __call__(self, x: "Tensor", generator: "torch.Generator") -> "Tensor":
        import torch

        twice = (x * self.std + self.mean).repeat(2, 1, 1, 1)  # colours are jittered on the 0 to 1 scale
        seed = int(torch.randint(2**31, (), generator=generator))
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            varied = self.steps(twice)
        return ((varied - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


SELECTOR = Selector(
    name="ssl",
    title="Self-supervised embedding (SimCLR), linear head",
    reference="Chen et al. 2020",
    options=("pretrain_epochs", "head"),
    build=vanilla.build,
    fit=vanilla.fit,
    prepare=prepare,
    prepared=True,
    colour=SKY,
    place=3,
)
