"""Make the embedded data set: 5,000 real Fashion-MNIST images and the votes of 51 simulated annotators.

    python -m data.sources.make_fashion [FOLDER of the four .gz files]        # about 2 minutes on two cores

Nobody was asked to label these images several times, so the annotators are simulated, and the product says so. An
annotator is a classifier with its own way of seeing (pixels, a smaller picture, edges; a random part of each), its own
method and its own training set, large or small; it votes for the class that it finds most likely. Training sets come
from the training images that are not in the pool, so nobody votes on an image that it has learned. What all methods
agree on is clear; what splits them (shirt or T-shirt?) is ambiguous in the picture itself.

Every seed is fixed and every classifier runs on one thread with one kind of BLAS kernel: the same pinned packages write
the same bytes. The sum of the file stands in `data/fashion/SHA256SUMS`.
"""

import argparse
import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import stratified
from data.sources.fashion import FILE

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
N_CLASSES = 10
POOL, TEST = 4000, 1000
EXPERIENCE = (1.0, 0.5, 0.05)  # share of a kind's training images that its three annotators see: some know more


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of bytes: uint8, with the dimensions that its header gives."""
    raw = gzip.decompress(path.read_bytes())
    n_dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", n_dimensions, offset=4)
    pixels: np.ndarray = np.frombuffer(raw, np.uint8, offset=4 + 4 * n_dimensions)
    return pixels.reshape(shape)


# --- ways of seeing: uint8 [N,28,28] -> float64 [N,features] ---------------------------------------------------------


def pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


def small(images: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels: the picture seen from further away."""
    means: np.ndarray = images.reshape(len(images), 14, 2, 14, 2).mean(axis=(2, 4))
    return means.reshape(len(images), -1) / 255.0


def edges(images: np.ndarray) -> np.ndarray:
    """Histograms of the edge direction (8 bins) in 7 x 7 cells of 4 x 4 pixels, relative to the 3 x 3 cells around."""
    down, right = np.gradient(images.astype(np.float64), axis=(1, 2))
    direction = ((np.arctan2(down, right) % np.pi) / np.pi * 8).astype(np.int64) % 8
    strength = np.hypot(down, right)[..., None] * (direction[..., None] == np.arange(8))  # [N,28,28,8]
    cells = strength.reshape(len(images), 7, 4, 7, 4, 8).mean(axis=(2, 4))  # [N,7,7,8]
    total = np.pad(cells.sum(axis=3), ((0, 0), (1, 1), (1, 1)))
    around = sum(total[:, i : i + 7, j : j + 7] for i in range(3) for j in range(3))
    return np.sqrt(cells / (np.asarray(around)[..., None] + 8.0)).reshape(len(images), -1)


def both(images: np.ndarray) -> np.ndarray:
    return np.concatenate([small(images), 2.0 * edges(images)], axis=1)


# --- methods ---------------------------------------------------------------------------------------------------------


def kinds() -> list[tuple[str, Callable[[np.ndarray], np.ndarray], int, Callable[[int], Any]]]:
    """(name, way of seeing, training images at most, seed -> classifier) of the 17 kinds of annotator."""
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    def components(n: int, seed: int) -> Any:
        return PCA(n, svd_solver="randomized", random_state=seed, whiten=False)

    def perceptron(seed: int) -> Any:
        return MLPClassifier((128,), early_stopping=True, n_iter_no_change=4, max_iter=60, random_state=seed)

    return [
        ("logistic, small picture", small, 8000, lambda s: LogisticRegression(C=0.1, max_iter=200)),
        ("logistic, edges", edges, 8000, lambda s: LogisticRegression(C=1.0, max_iter=200)),
        ("neighbours, pixels", pixels, 20000, lambda s: make_pipeline(components(40, s), KNeighborsClassifier(5))),
        ("neighbours, edges", edges, 20000, lambda s: make_pipeline(components(50, s), KNeighborsClassifier(7))),
        ("forest, pixels", pixels, 10000, lambda s: RandomForestClassifier(100, random_state=s)),
        ("forest, both", both, 10000, lambda s: RandomForestClassifier(100, random_state=s)),
        ("extra trees, pixels", pixels, 12000, lambda s: ExtraTreesClassifier(150, random_state=s)),
        ("extra trees, both", both, 12000, lambda s: ExtraTreesClassifier(150, random_state=s)),
        ("perceptron, pixels", pixels, 30000, lambda s: make_pipeline(components(80, s), perceptron(s))),
        ("perceptron, edges", edges, 30000, lambda s: make_pipeline(components(120, s), perceptron(s))),
        ("perceptron, both", both, 30000, lambda s: make_pipeline(components(120, s), perceptron(s))),
        ("linear discriminant, both", both, 30000, lambda s: LinearDiscriminantAnalysis()),
        (
            "quadratic discriminant, both",
            both,
            30000,
            lambda s: make_pipeline(components(50, s), QuadraticDiscriminantAnalysis(reg_param=0.01)),
        ),
        ("perceptron, small picture", small, 30000, lambda s: make_pipeline(components(80, s), perceptron(s))),
        ("support vectors, pixels", pixels, 20000, lambda s: make_pipeline(components(80, s), SVC(C=5.0))),
        ("support vectors, edges", edges, 20000, lambda s: make_pipeline(components(120, s), SVC(C=5.0))),
        ("support vectors, both", both, 20000, lambda s: make_pipeline(components(120, s), SVC(C=5.0))),
    ]


def vote(kind: int, member: int, images: np.ndarray, labels: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """One annotator's votes: int64 [len(pool)].

    images uint8 [N,28,28], labels uint8 [N]; pool: positions voted on, which the annotator does not train on.
    """
    from threadpoolctl import threadpool_limits

    _, see, most, build = kinds()[kind]
    rng = np.random.default_rng([kind, member])
    strangers = np.setdiff1d(np.arange(len(images)), pool)
    train = np.sort(rng.choice(strangers, int(most * EXPERIENCE[member]), replace=False))
    with threadpool_limits(1):
        features, asked = see(images[train]), see(images[pool])
        seen = np.sort(rng.choice(features.shape[1], int(0.7 * features.shape[1]), replace=False))
        classifier = build(member).fit(features[:, seen], labels[train])
        return np.asarray(classifier.predict(asked[:, seen]), np.int64)


def make(folder: Path, file: Path) -> None:
    """Read the four .gz files of `folder`, simulate the annotators and write `file`."""
    from joblib import Parallel, delayed  # type: ignore[import-untyped]

    images = read_idx(folder / "train-images-idx3-ubyte.gz")
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz")
    test_images = read_idx(folder / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz")
    pool = stratified(labels, POOL, seed=0)
    test = stratified(test_labels, TEST, seed=0)

    # The workers start with this setting: one BLAS kernel, so that the last bit does not depend on the processor.
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"
    annotators = [(kind, member) for kind in range(len(kinds())) for member in range(len(EXPERIENCE))]
    votes = np.stack(Parallel(n_jobs=2)(delayed(vote)(k, m, images, labels, pool) for k, m in annotators), axis=1)
    label_counts = (votes[:, :, None] == np.arange(N_CLASSES)).sum(axis=1)

    file.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        file,
        pool_index=pool,
        images=images[pool],
        labels=labels[pool],
        label_counts=label_counts.astype(np.uint8),
        test_index=test,
        test_images=test_images[test],
        test_labels=test_labels[test],
    )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "SHA256SUMS").write_text(f"{digest}  {file.name}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the embedded Fashion-MNIST data set with simulated annotators.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEBIAN, help=f"the four .gz files (default {DEBIAN})")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(
            f"there is no folder {folder}; install the Debian package dataset-fashion-mnist, or give the folder"
        )
    make(folder, FILE)
