from dataclasses import dataclass
from pathlib import Path

from data import cache, cifar10, cifar10h, fashion
from data.dataset import ImageDataset, stratified
from data.errors import UserError


@dataclass
class Source:
    name: str
    title: str
    available: bool
    reason: str

def available(root=None):
    return [Source("fashion", "Fashion-MNIST, 5,000 images", True, ""), Source("cifar10","CIFAR-10",not cifar10.missing(Path(root or cache.home())),cifar10.missing(Path(root or cache.home())))]

def load(name, root=None, limit=None, **options):
    root = Path(root) if root else cache.home()
    ds = fashion.load() if name == "fashion" else {"cifar10": cifar10, "cifar10h": cifar10h}[name].load(root, **options)
    if limit is not None:
        ds = ds.subset(stratified(ds.labels, limit, 0))
    return ds
