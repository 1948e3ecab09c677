# %% [markdown]
# # NextLabel from Python
#
# Both papers in a page, with a model of your own and no run folder. The file is plain Python; `# %%` marks cells, so that
# VS Code, PyCharm, Spyder and Jupyter (with jupytext) open it as a notebook. In the checkout, `python -m docs.python` runs all
# of it in a few seconds.

# %%
import numpy as np
import torch
from torch import nn

import data
from core import relabel, scores
from core.gradnorm import gradient_norms
from core.influence import influence, inverse_hvp, loss_gradient
from data import votes

pool = data.load("fashion", limit=2_000)
images = torch.from_numpy(pool.images).permute(0, 3, 1, 2).float() / 255
labels = torch.from_numpy(pool.labels)
print(f"{len(pool):,} images of {len(pool.class_names)} classes")

# %% [markdown]
# ## A model
#
# Any classifier will do: images [N, C, H, W] → logits [N, K].


# %%
def trained(rows: np.ndarray, given: torch.Tensor, seed: int = 0) -> nn.Module:
    """A small network after some steps on these rows."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
        nn.Flatten(), nn.Linear(144, len(pool.class_names)),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        batch = torch.from_numpy(generator.choice(rows, 64))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), given[batch]).backward()
        optimiser.step()
    return model.eval()


rows = votes.random_order(len(pool), 0)[:200]
model = trained(rows, labels)

# %% [markdown]
# ## Which image to label next
#
# The gradient norm of the expected entropy, for every unlabelled image, exactly and in about the time of one training step
# (Wang et al. 2022). `loss` is "entropy", "expected", "egl" or "label".

# %%
unlabelled = np.setdiff1d(np.arange(len(pool)), rows)
norms = gradient_norms(model, images[unlabelled], loss="entropy")
next_ones = unlabelled[norms.argsort(descending=True)[:5]]
print("label next:", ", ".join(pool.ids[row] for row in next_ones))

# %% [markdown]
# ## What a label is worth
#
# The gradient norm is a bound of something: the change of the loss on held-out images, to first order, if the image and its
# label were left out (Eqs. 2 to 4 of the same paper). With labels for all images both can be computed, and compared.

# %%
held_out, held_out_labels = images[unlabelled[:500]], labels[unlabelled[:500]]
vector = loss_gradient(model, held_out, held_out_labels)
solution = inverse_hvp(model, images[rows], labels[rows], vector, damping=0.1)
candidates = unlabelled[500:]
terms = influence(model, images[candidates], solution, n_labels=len(rows), targets=labels[candidates])
print(f"of the candidates {(terms.target > 0).double().mean():.0%} lower the held-out loss, the others raise it")
print(f"the influence is {(terms.approx_1 / terms.approx_2).median():.1%} of its bound, in the median")

# %% [markdown]
# ## Which label to check next
#
# A fifth of the labels is wrong. The model learns from them, and the cleaning score Φ = CE(label, p) − H(p) ranks them: high
# where the label is wrong and the image is clear (Bernhardt et al. 2022). Each half of the images is predicted by the model of
# the other half: a model that has seen a wrong label may repeat it.

# %%
wrong = votes.symmetric_noise(pool.labels, len(pool.class_names), 0.2, seed=0)
probs = np.empty((len(pool), len(pool.class_names)))
halves = np.array_split(votes.random_order(len(pool), 1), 2)
for here, there in (halves, halves[::-1]):
    half = trained(here, torch.from_numpy(wrong))
    with torch.no_grad():
        probs[there] = half(images[there]).softmax(dim=1).double().numpy()
one_hot = np.eye(len(pool.class_names), dtype=np.int64)
phi = scores.cleaning_score(one_hot[wrong], probs)
top = np.argsort(-phi)[:100]
print(f"of the 100 labels to check first, {np.mean(wrong[top] != pool.labels[top]):.0%} are wrong; of all, 20%")

# %% [markdown]
# ## What a budget buys
#
# Algorithm 1 of the second paper: annotators are asked until a majority forms, in the order of a score; between a random order
# and an oracle that knows which labels are wrong.

# %%
budget = 800
for policy in ("random", phi, "oracle"):
    bought = relabel.simulate(one_hot[pool.labels], wrong, policy, budget=budget, seeds=range(3))
    name = policy if isinstance(policy, str) else "Φ"
    print(f"{name:>6}: {bought.correctness[:, -1].mean():.1%} right after {budget} labels, AUC {bought.auc:.3f}")
