"""Two strided convolutions and a linear head: for small images, and fast."""

from core.models import Architecture


def build(channels, n_classes, width, dropout):
    """A fresh model: [N, C, H, W] floats → logits [N, K]."""
    from torch import nn

    from core.models.architectures import Classifier

    class Strided(Classifier):
        def __init__(self):
            super().__init__()
            self.stage_widths = (width, 2 * width)
            self.first = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU())
            self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(2 * width, n_classes)

        def stages(self, x):
            first = self.first(x)
            return [first, self.second(first)]

    return Strided()


MODEL = Architecture(name="strided", title="Two strided convolutions", build=build, options=("width",))
