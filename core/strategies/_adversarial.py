"""What VAAL and SRAAL share: a variational autoencoder, and a discriminator between labelled and unlabelled samples."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.strategies import Floats, Pool

LATENT = 32  # as both papers
LEARNING_RATE = 5e-4
VAE_STEPS = 2  # of the autoencoder for each of the discriminator, as VAAL's public code
SCORE_BATCH = 512


class VariationalAutoencoder(nn.Module):
    """Three strided convolutions down to a latent mean and log variance, three up again."""

    def __init__(self, shape: torch.Size, width: int) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.small = (4 * width, math.ceil(self.height / 8), math.ceil(self.width / 8))
        sizes = (channels, width, 2 * width, 4 * width)
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in pairwise(sizes)
            ),
            nn.Flatten(),
        )
        self.moments = nn.Linear(math.prod(self.small), 2 * LATENT)
        self.spread = nn.Linear(LATENT, math.prod(self.small))
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in ((4 * width, 2 * width), (2 * width, width))
            ),
            nn.ConvTranspose2d(width, channels, 4, 2, 1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [n, LATENT]."""
        mean, log_variance = self.moments(self.encoder(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, z: Tensor) -> Tensor:
        """Images [n, C, H, W]."""
        return self.decoder(self.spread(z).unflatten(1, self.small))[:, :, : self.height, : self.width]


def unfamiliarity(
    pool: Pool, *, uncertainty: Tensor | None = None, embeddings: tuple[Tensor, Tensor] | None = None
) -> Floats:
    """1 − D(x) in [0, 1], [n]: how surely a discriminator takes an unlabelled sample for one that is not labelled.

    Autoencoder and discriminator play against each other on the images of both sets, in as many steps as the model's
    training took. uncertainty: [n] in [0, 1]; the discriminator is told that an unlabelled sample is labelled to the
    degree 1 − uncertainty (0 without it). embeddings: of unlabelled [n, D] and labelled [m, D] samples; a linear target
    learner brings them to the latent size, and the discriminator sees them beside the autoencoder's.
    """
    rng = np.random.default_rng(pool.seed)
    generator = torch.Generator().manual_seed(pool.seed)
    example = pool.images(np.arange(1))
    device, labels = example.device, pool.labels()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pool.seed)
        vae = VariationalAutoencoder(example.shape[1:], pool.width).to(device)
        learner = None if embeddings is None else nn.Linear(embeddings[0].shape[1], LATENT).to(device)
        answer = nn.Linear(LATENT, int(labels.max()) + 1).to(device)
        inputs = LATENT if learner is None else 2 * LATENT
        discriminator = nn.Sequential(
            nn.Linear(inputs, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1), nn.Flatten(0)
        ).to(device)
    players = [vae] if learner is None else [vae, learner, answer]
    play = torch.optim.Adam([p for player in players for p in player.parameters()], LEARNING_RATE)
    judge = torch.optim.Adam(discriminator.parameters(), LEARNING_RATE)

    def represent(mean: Tensor, seen: Tensor | None) -> Tensor:
        return mean if learner is None or seen is None else torch.cat([mean, learner(seen)], dim=1)

    for _ in range(pool.steps):
        for turn in range(VAE_STEPS + 1):
            new = rng.integers(len(pool), size=min(pool.batch_size, len(pool)))
            old = rng.integers(pool.n_labelled, size=min(pool.batch_size, pool.n_labelled))
            at_new, at_old = torch.from_numpy(new).to(device), torch.from_numpy(old).to(device)
            x = torch.cat([pool.images(new), pool.labelled_images(old)])
            seen = None if embeddings is None else torch.cat([embeddings[0][at_new], embeddings[1][at_old]])
            if turn < VAE_STEPS:
                mean, log_variance = vae.encode(x)
                noise = torch.randn(mean.shape, generator=generator).to(device)
                image = vae.decode(mean + (0.5 * log_variance).exp() * noise)
                divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1).mean()
                z = represent(mean, seen)
                verdict = discriminator(z)  # both sets want to be taken for labelled
                loss = F.mse_loss(image, x) + divergence / x[0].numel()
                loss = loss + F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
                if learner is not None:
                    loss = loss + F.cross_entropy(answer(z[len(new) :, LATENT:]), labels[at_old])
                play.zero_grad(set_to_none=True)
                loss.backward()
                play.step()
            else:
                with torch.no_grad():
                    z = represent(vae.encode(x)[0], seen)
                told = torch.zeros(len(new), device=device) if uncertainty is None else 1 - uncertainty[at_new]
                verdict = discriminator(z)
                loss = F.binary_cross_entropy_with_logits(verdict[: len(new)], told)
                loss = loss + F.binary_cross_entropy_with_logits(
                    verdict[len(new) :], torch.ones(len(old), device=device)
                )
                judge.zero_grad(set_to_none=True)
                loss.backward()
                judge.step()

    vae.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(pool), SCORE_BATCH):
            rows = np.arange(start, min(start + SCORE_BATCH, len(pool)))
            seen = None if embeddings is None else embeddings[0][torch.from_numpy(rows).to(device)]
            parts.append(discriminator(represent(vae.encode(pool.images(rows))[0], seen)))
    return (-torch.cat(parts).double()).sigmoid().cpu().numpy()
