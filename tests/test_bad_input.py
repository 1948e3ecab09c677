"""What a user can get wrong, and the one sentence that says what to do: exit code 2, no traceback, nothing lost."""

import dataclasses
import functools
import json
import re
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import data
from core.__main__ import main
from core.engine import inference, influence, loop
from core.files import printed
from core.runs import annotation, run, settle
from core.runs.spec import Config
from tests import forked

LEARN = ["run", "--task", "active-learning", "--width", "4", "--epochs", "1"]
MASKS = ["run", "--task", "active-learning", "--dataset", "garments", "--width", "4", "--steps", "2"]
CLEAN = ["run", "--task", "label-cleaning", "--width", "4", "--epochs", "1"]


class Situation:
    """A place to set up what goes wrong."""

    def __init__(self, tmp_path: Path, home: Path, request: pytest.FixtureRequest) -> None:
        self.tmp_path, self.home, self.request = tmp_path, home, request

    def real_data(self) -> Path:
        return self.request.getfixturevalue("real_data")

    def pictures(self, **classes: int) -> Path:
        """An ImageFolder tree of small grey images."""
        random, root = np.random.default_rng(0), self.tmp_path / "pictures"
        for label, n in classes.items():
            (root / label).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / label / f"{i}.png")
        return root

    def a_run(self, cycles: int = 2) -> run.Run:
        pool = data.load("fashion", limit=300)
        config = Config("active-learning", "fashion", "margin", 20, cycles, limit=300, width=4, epochs=1)
        return run.create(settle.prepare(config, pool), settle.about(pool))


def truncated_cifar_batch(here: Situation) -> list[str]:
    folder = here.tmp_path / "cifar" / "cifar-10-batches-py"
    shutil.copytree(here.real_data() / folder.name, folder)
    (folder / "data_batch_3").write_bytes((folder / "data_batch_3").read_bytes()[:1_000_000])
    return [*LEARN, "--dataset", "cifar10", "--root", str(folder.parent)]


def counts_of_another_length(here: Situation) -> list[str]:
    root = here.tmp_path / "cifar"
    root.mkdir()
    (root / "cifar-10-batches-py").symlink_to(here.real_data() / "cifar-10-batches-py")
    np.save(root / "cifar10h-counts.npy", np.ones((9_999, 10), dtype=np.int64))
    return [*CLEAN, "--dataset", "cifar10h", "--root", str(root)]


def no_folder(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "folder", "--root", str(here.tmp_path / "nowhere")]


def folder_with_no_image(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "folder", "--root", str(here.pictures(cat=0, dog=0))]


def folder_with_one_class(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "folder", "--root", str(here.pictures(cat=9))]


def label_outside_the_classes(here: Situation) -> list[str]:
    root = here.pictures(all=6)
    lines = [f"all/{i}.png,{'bird' if i == 3 else 'cat'},3,2" for i in range(6)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label,cat,dog", *lines]))
    return [*CLEAN, "--dataset", "folder", "--root", str(root)]


def budget_larger_than_the_pool(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--budget", "2000", "--cycles", "4"]


def limit_larger_than_the_pool(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--limit", "5000"]


def noise_out_of_reach(here: Situation) -> list[str]:
    return [*CLEAN, "--dataset", "fashion", "--noise", "0.95"]


def no_epochs(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--epochs", "0"]


def negative_seed(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--seed", "-1"]


def noise_in_active_learning(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--noise", "0.2"]


def output_that_cannot_be_written(here: Situation) -> list[str]:
    one = here.a_run()
    loop.work(one, data.load("fashion", limit=300))
    return ["export", one.id, "--table", "cycles", "--out", str(here.tmp_path / "nowhere" / "c.csv")]


def weights_that_are_gone(here: Situation) -> list[str]:
    tiny = ["--dataset", "fashion", "--limit", "40", "--width", "4", "--epochs", "1", "--cycles", "1"]
    assert main([*CLEAN, *tiny]) == 0
    (one,) = run.all_runs()
    (one.cycle_path(0) / "weights.safetensors").unlink()
    return ["step", one.id]


def influence_on_a_model_that_is_gone(here: Situation) -> list[str]:
    one, pool = here.a_run(cycles=1), data.load("fashion", limit=300)
    loop.work(one, pool)
    (one.cycle_path(0) / "weights.safetensors").unlink()
    return ["explain", one.id, pool.ids[0], "--influence"]


def more_votes_than_people(here: Situation) -> list[str]:
    root = here.pictures(cat=4, dog=4)
    lines = [f"{c}/{i}.png,{c},1e30,2" for c in ("cat", "dog") for i in range(4)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label,cat,dog", *lines]))
    return [*CLEAN, "--dataset", "folder", "--root", str(root)]


def a_name_too_long_for_a_file(here: Situation) -> list[str]:
    root = here.pictures(cat=4, dog=4)
    (root / "metadata.csv").write_text("file_name,label\n" + "x" * 300 + ".png,cat\n")
    return [*LEARN, "--dataset", "folder", "--root", str(root)]


def subset_smaller_than_the_budget(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--subset", "100", "--budget", "200"]


def strategy_for_label_cleaning(here: Situation) -> list[str]:
    return [*CLEAN, "--dataset", "fashion", "--strategy", "core-set"]


def score_for_active_learning(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--score", "cleaning"]


def two_ways_to_go_on(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--warm-start", "--finetune-epochs", "2"]


def nothing_to_run(here: Situation) -> list[str]:
    return ["run", "--dataset", "fashion"]


def protocol_that_is_not_there(here: Situation) -> list[str]:
    return ["run", "--protocol", "imagenet"]


def protocol_with_a_wrong_setting(here: Situation) -> list[str]:
    path = here.tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\nstrategies = ["random"]\nseeds = [0]\n'
        '[run]\ntask = "active-learning"\ndataset = "fashion"\nepoch = 3\n'
    )
    return ["run", "--protocol", str(path)]


def protocol_for_label_cleaning(here: Situation) -> list[str]:
    return ["run", "--protocol", "fashion", "--score", "cleaning"]


def comparison_of_a_run_that_is_not_there(here: Situation) -> list[str]:
    return ["compare", "20260101-000000-nothing"]


def home_that_is_a_file(here: Situation) -> list[str]:
    here.home.write_text("")
    return ["list"]


def learning_rate_that_diverges(here: Situation) -> list[str]:
    return [
        *LEARN,
        "--dataset",
        "fashion",
        "--limit",
        "300",
        "--budget",
        "40",
        "--cycles",
        "1",
        "--lr",
        "1e30",
        "--epochs",
        "3",
    ]


def unknown_run(here: Situation) -> list[str]:
    return ["resume", "no-such-run"]


def a_path_for_a_run(here: Situation) -> list[str]:
    return ["show", "../../etc"]


def damaged_configuration(here: Situation) -> list[str]:
    one = here.a_run()
    (one.path / "config.json").write_text('{"config": {"task"')
    return ["resume", one.id]


def two_workers_on_one_run(here: Situation) -> list[str]:
    one = here.a_run()
    lock = one.lock
    lock.acquire()
    here.request.addfinalizer(lock.release)
    return ["resume", one.id]


def data_that_changed_under_the_run(here: Situation) -> list[str]:
    root = here.pictures(cat=30, dog=30)
    assert main([*LEARN, "--dataset", "folder", "--root", str(root), "--budget", "20", "--cycles", "1"]) == 0
    one = run.all_runs()[0]
    labelled = one.log.labels()["sample_id"][0]
    (root / labelled).unlink()
    return ["step", one.id]


def images_added_under_the_run(here: Situation) -> list[str]:
    root = here.pictures(cat=30, dog=30)
    assert main([*LEARN, "--dataset", "folder", "--root", str(root), "--budget", "20", "--cycles", "1"]) == 0
    shutil.copytree(root / "cat", root / "more")
    return ["step", run.all_runs()[0].id]


def home_that_cannot_be_written(here: Situation) -> list[str]:
    here.home.write_text("a file where the folder should be")
    return [*LEARN, "--dataset", "fashion", "--limit", "300", "--budget", "20"]


def figure_without_chrome(here: Situation) -> list[str]:
    one = here.a_run()
    loop.work(one, data.load("fashion", limit=300))
    here.request.getfixturevalue("monkeypatch").setattr(printed, "has_browser", lambda: False)
    return ["export", one.id, "--figure", "curves", "--out", str(here.tmp_path / "curves.pdf")]


def unknown_figure_format(here: Situation) -> list[str]:
    one = here.a_run()
    loop.work(one, data.load("fashion", limit=300))
    return ["export", one.id, "--figure", "curves", "--out", str(here.tmp_path / "curves.gif")]


def cycle_that_is_not_there(here: Situation) -> list[str]:
    return ["export", here.a_run().id, "--table", "ranking", "--out", str(here.tmp_path / "r.csv")]


def votes(here: Situation, text: str) -> list[str]:
    root = here.pictures(cat=9, dog=9)
    (here.tmp_path / "votes.csv").write_text("sample_id,annotator,label\n" + text)
    return [*CLEAN, "--dataset", "folder", "--root", str(root), "--votes", str(here.tmp_path / "votes.csv")]


def votes_on_an_unknown_sample(here: Situation) -> list[str]:
    return votes(here, "cow/0.png,ann,cat\n")


def votes_for_an_unknown_class(here: Situation) -> list[str]:
    return votes(here, "".join(f"cat/{i}.png,ann,cow\n" for i in range(9)))


def votes_that_all_tie(here: Situation) -> list[str]:
    ids = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(9)]
    return votes(here, "".join(f"{one},ann,cat\n{one},bob,dog\n" for one in ids))


def the_same_vote_twice(here: Situation) -> list[str]:
    return votes(here, "cat/0.png,ann,cat\ncat/0.png,ann,cat\n")


def nobody_to_simulate(here: Situation) -> list[str]:
    root = here.pictures(cat=9, dog=9)
    return [*CLEAN, "--dataset", "folder", "--root", str(root), "--annotator", "simulated"]


def forget_rate_of_one(here: Situation) -> list[str]:
    return [*CLEAN, "--dataset", "fashion", "--limit", "300", "--selector", "co-teaching", "--forget-rate", "1"]


def weights_of_another_network(here: Situation) -> list[str]:
    torch.save({"fc.weight": torch.zeros(2, 2)}, here.tmp_path / "w.pth")
    file = str(here.tmp_path / "w.pth")
    return [*CLEAN, "--dataset", "fashion", "--limit", "300", "--selector", "pretrained", "--weights", file]


def weights_of_another_timm_network(here: Situation) -> list[str]:
    torch.save({"fc.weight": torch.zeros(2, 2)}, here.tmp_path / "w.pth")
    return [
        *LEARN,
        "--limit",
        "300",
        "--budget",
        "20",
        "--model",
        "timm:test_resnet",
        "--weights",
        str(here.tmp_path / "w.pth"),
    ]


def a_timm_network_that_is_not_there(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--budget", "20", "--model", "timm:resnet19"]


def weights_for_a_network_of_ours(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--model", "small-cnn", "--weights", str(here.tmp_path / "w.pth")]


def a_frozen_network_of_random_weights(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--model", "small-cnn", "--freeze"]


def factory(here: Situation, text: str) -> list[str]:
    patch = here.request.getfixturevalue("monkeypatch")
    patch.syspath_prepend(str(here.tmp_path))
    (here.tmp_path / f"nets_{here.request.node.callspec.id.split('-')[0]}.py").write_text(text)
    name = f"nets_{here.request.node.callspec.id.split('-')[0]}:make"
    return [*LEARN, "--limit", "300", "--budget", "20", "--model", name]


def a_factory_that_is_no_module(here: Situation) -> list[str]:
    return factory(here, "def make(channels, n_classes):\n    return 3\n")


def a_factory_with_other_classes(here: Situation) -> list[str]:
    return factory(
        here,
        "from torch import nn\n"
        "def make(channels, n_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784 * channels, 7))\n",
    )


def a_factory_with_operators_that_have_no_second_derivative(here: Situation) -> list[str]:
    model = """
import torch
from torch import nn
from torch.autograd.function import once_differentiable

class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient

class Network(nn.Module):
    def __init__(self, channels, n_classes):
        super().__init__()
        self.body, self.head = nn.Linear(784 * channels, 8), nn.Linear(8, n_classes)

    def forward(self, x):
        return self.head(Twice.apply(self.body(x.flatten(1)).relu()))

def make(channels, n_classes):
    return Network(channels, n_classes)
"""
    return [*factory(here, model), "--strategy", "expected-influence"]


def conjugate_gradients_that_do_not_converge(here: Situation) -> list[str]:
    few = functools.partial(influence.inverse_hvp, max_iterations=1)
    here.request.getfixturevalue("monkeypatch").setattr(influence, "inverse_hvp", few)
    return [*LEARN, "--limit", "300", "--budget", "20", "--strategy", "expected-influence"]


def a_frozen_network_for_a_second_one(here: Situation) -> list[str]:
    frozen = ["--model", "torchvision:mobilenet_v2", "--freeze"]
    return ["run", "--task", "active-learning", "--limit", "300", *frozen, "--strategy", "expected-influence"]


def one_label_to_learn_and_to_hold_out(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--initial", "1", "--budget", "20", "--strategy", "expected-influence"]


def damping_below_zero(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--evidence", "influence", "--damping", "-1"]


def influence_on_no_test_image(here: Situation) -> list[str]:
    root = here.pictures(cat=9, dog=9)
    return [*LEARN, "--dataset", "folder", "--root", str(root), "--test-share", "0", "--evidence", "influence"]


def a_model_with_a_misspelt_name(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--model", "resnet-18"]


def a_model_of_masks_for_classes(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--model", "small-unet"]


def labels_of_another_project(here: Situation) -> list[str]:
    pool = data.load("fashion", limit=300)
    pool = dataclasses.replace(pool, label_counts=None, annotators="none")
    config = Config("label-cleaning", "fashion", "cleaning", 0, 1, limit=300, width=4, epochs=1, annotator="person")
    one = run.create(settle.prepare(config, pool), settle.about(pool))
    (here.tmp_path / "export.json").write_text('[{"data": {"text": "hello"}, "annotations": []}]')
    return ["import", one.id, str(here.tmp_path / "export.json")]


def labels_into_a_simulated_run(here: Situation) -> list[str]:
    (here.tmp_path / "v.csv").write_text(f"sample_id,annotator,label\n{data.load('fashion', limit=300).ids[0]},ann,1\n")
    return ["import", here.a_run().id, str(here.tmp_path / "v.csv")]


def labels_that_are_not_there(here: Situation) -> list[str]:
    return ["import", here.a_run().id, str(here.tmp_path / "labels.zip")]


def nobody_left_to_ask(here: Situation) -> list[str]:
    return [*LEARN, "--annotator", "person", "--limit", "100"]


def simulated_annotators_in_active_learning(here: Situation) -> list[str]:
    return [*LEARN, "--annotator", "simulated"]


def more_initial_labels_than_there_are(here: Situation) -> list[str]:
    root = str(here.pictures(cat=9, dog=9))
    return [*LEARN, "--annotator", "person", "--initial", "20", "--dataset", "folder", "--root", root]


def classes_that_the_folder_contradicts(here: Situation) -> list[str]:
    root = str(here.pictures(cat=9, dog=9))
    return [*LEARN, "--annotator", "person", "--dataset", "folder", "--root", root, "--classes", "cat", "elk"]


def classes_of_a_set_that_has_its_own(here: Situation) -> list[str]:
    return [*LEARN, "--classes", "cat", "dog"]


def train_that_leads_elsewhere(here: Situation) -> list[str]:
    root = here.tmp_path / "linked"
    root.mkdir()
    (root / "train").symlink_to(here.pictures(cat=9, dog=9))
    return [*LEARN, "--dataset", "folder", "--root", str(root)]


def folder_of_other_files(here: Situation) -> list[str]:
    root = here.pictures(cat=0)
    (root / "cat" / "notes.txt").write_text("no image")
    return [*LEARN, "--dataset", "folder", "--root", str(root)]


def parquet_without_images(here: Situation) -> list[str]:
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_parquet(here.tmp_path / "x.parquet")
    return [*LEARN, "--dataset", "parquet", "--root", str(here.tmp_path / "x.parquet")]


def csv_of_files_that_are_gone(here: Situation) -> list[str]:
    (here.tmp_path / "x.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    return [*LEARN, "--dataset", "csv", "--root", str(here.tmp_path / "x.csv")]


def a_strategy_of_classes_for_masks(here: Situation) -> list[str]:
    return [*MASKS, "--strategy", "badge"]


def a_model_of_classes_for_masks(here: Situation) -> list[str]:
    return [*MASKS, "--model", "resnet18"]


def a_frozen_network_for_masks(here: Situation) -> list[str]:
    return [*MASKS, "--model", "smp:unet/resnet18", "--freeze"]


def noise_of_classes_for_masks(here: Situation) -> list[str]:
    return [*CLEAN, "--dataset", "garments", "--noise", "0.1", "--noise-kind", "symmetric"]


def noise_of_masks_for_classes(here: Situation) -> list[str]:
    return [*CLEAN, "--dataset", "fashion", "--noise", "0.1", "--noise-kind", "mixed"]


def a_selector_of_classes_for_masks(here: Situation) -> list[str]:
    return [*CLEAN, "--dataset", "garments", "--noise", "0.1", "--selector", "elr"]


def pixels_of_classes(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--budget-unit", "pixels"]


def influence_of_masks(here: Situation) -> list[str]:
    return [*MASKS, "--evidence", "influence"]


def class_weights_of_classes(here: Situation) -> list[str]:
    return [*LEARN, "--limit", "300", "--class-weights", "median-frequency"]


def sequences_of_a_set_without_any(here: Situation) -> list[str]:
    return [*MASKS, "--per-group", "2"]


def compressed_shards(here: Situation) -> list[str]:
    with tarfile.open(here.tmp_path / "x.tar", "w:gz") as archive:
        archive.add(here.pictures(cat=1), "cat")
    return [*LEARN, "--dataset", "webdataset", "--root", str(here.tmp_path / "x.tar")]


def masks_in_coco(here: Situation, **changes: object) -> list[str]:
    """A car in a picture of 8 × 8 pixels, with changes of its annotation."""
    Image.new("L", (8, 8)).save(here.tmp_path / "a.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]} | changes
    image = {"id": 1, "file_name": "a.png", "height": 8, "width": 8}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "car"}]}
    (here.tmp_path / "x.json").write_text(json.dumps(content))
    return [*LEARN, "--dataset", "coco-masks", "--root", str(here.tmp_path / "x.json")]


def masks_of_an_image_that_is_not_listed(here: Situation) -> list[str]:
    return masks_in_coco(here, image_id=2)


def a_crowd_of_polygons(here: Situation) -> list[str]:
    return masks_in_coco(here, iscrowd=1)


def a_polygon_of_two_points(here: Situation) -> list[str]:
    return masks_in_coco(here, segmentation=[[0, 0, 4, 0]])


def run_lengths_of_another_image(here: Situation) -> list[str]:
    return masks_in_coco(here, segmentation={"size": [8, 8], "counts": [60]})


def masks_that_nobody_has_drawn(here: Situation) -> list[str]:
    (here.pictures(images=4) / "classes.csv").write_text("road\nsky\n")
    return [*LEARN, "--dataset", "masks", "--root", str(here.tmp_path / "pictures")]


def masks_of_a_run_with_classes(here: Situation) -> list[str]:
    return ["export", here.a_run().id, "--masks", "png", "--out", str(here.tmp_path / "masks.zip")]


def annotations_of_another_kind(here: Situation) -> list[str]:
    (here.tmp_path / "x.json").write_text('{"images": []}')
    return [*LEARN, "--dataset", "coco", "--root", str(here.tmp_path / "x.json")]


def nothing_but_images_of_40_000_pixels_a_side(here: Situation) -> list[str]:
    root = here.pictures(cat=0, dog=0)
    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    for label in ("cat", "dog"):
        (root / label / "large.png").write_bytes(png + b"\0\0\0\0IDAT5\xaf\x06\x1e")
    return [*LEARN, "--dataset", "folder", "--root", str(root)]


def a_fit_that_is_not_there(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "folder", "--root", str(here.pictures(cat=4, dog=4)), "--fit", "squeeze"]


def a_fit_of_a_set_that_needs_none(here: Situation) -> list[str]:
    return [*LEARN, "--dataset", "fashion", "--fit", "crop"]


def arm_that_is_not_there(here: Situation) -> list[str]:
    return ["run", "--protocol", "cifar10h-15", "--arm", "simclr"]


def predicted(here: Situation, probs: np.ndarray, *more: str) -> list[str]:
    """A run by predictions of 18 images of cats and dogs; the rows are in the order of their names."""
    root = here.pictures(cat=9, dog=9)
    np.save(here.tmp_path / "probs.npy", probs)
    return [
        *CLEAN[:3],
        "--dataset",
        "folder",
        "--root",
        str(root),
        "--predictions",
        str(here.tmp_path / "probs.npy"),
        *more,
    ]


def predictions_that_do_not_sum_to_one(here: Situation) -> list[str]:
    return predicted(here, np.full((18, 2), 0.4))


def predictions_with_a_gap(here: Situation) -> list[str]:
    return predicted(here, np.where(np.arange(36).reshape(18, 2) == 7, np.nan, 0.5))


def predictions_of_other_classes(here: Situation) -> list[str]:
    return predicted(here, np.full((18, 3), 1 / 3))


def predictions_of_other_images(here: Situation) -> list[str]:
    return predicted(here, np.full((17, 2), 0.5))


def predictions_that_name_an_image_twice(here: Situation) -> list[str]:
    (here.tmp_path / "probs.csv").write_text("sample_id,cat,dog\n" + "cat/0.png,0.5,0.5\n" * 18)
    return [*predicted(here, np.full((18, 2), 0.5)), "--predictions", str(here.tmp_path / "probs.csv")]


def predictions_that_are_pickled(here: Situation) -> list[str]:
    return predicted(here, np.full((18, 2), 0.5, dtype=object))


def predictions_that_are_cut_short(here: Situation) -> list[str]:
    command = predicted(here, np.full((18, 2), 0.5))
    (here.tmp_path / "probs.npy").write_bytes((here.tmp_path / "probs.npy").read_bytes()[:-8])
    return command


def labels_instead_of_predictions(here: Situation) -> list[str]:
    return predicted(here, np.zeros((18, 2), dtype=np.int64))


def float_labels_to_rank(here: Situation) -> list[str]:
    np.save(here.tmp_path / "probs.npy", np.full((3, 2), 0.5))
    np.save(here.tmp_path / "labels.npy", np.array([0.0, 1.0, 1.0]))
    names = [f"--{name}={here.tmp_path / name}.npy" for name in ("predictions", "labels")]
    return ["rank", names[0].replace("predictions.npy", "probs.npy"), names[1], "--out", str(here.tmp_path / "r.csv")]


def predictions_of_a_cycle_that_is_over(here: Situation) -> list[str]:
    assert main(predicted(here, np.full((18, 2), 0.5), "--annotator", "person")) == 0
    (one,) = run.all_runs()
    row = one.ranking(0)["sample_id"].iloc[:1].tolist()
    annotation.record(one, row, np.array([1]), ["ann"])
    return ["step", one.id, "--predictions", str(here.tmp_path / "probs.npy")]


def predictions_for_a_run_that_trains(here: Situation) -> list[str]:
    one = here.a_run(cycles=1)
    np.save(here.tmp_path / "probs.npy", np.full((300, 10), 0.1))
    assert main(["resume", one.id]) == 0
    return ["step", one.id, "--predictions", str(here.tmp_path / "probs.npy")]


@pytest.mark.parametrize(
    ("situation", "says"),
    [
        (predictions_that_do_not_sum_to_one, r"a row that sums to 0.8 instead of 1, that of 'cat/.\.png'"),
        (predictions_with_a_gap, r"missing or not finite, in the row of 'cat/3.png'"),
        (predictions_of_other_classes, r"has 3 columns of numbers, and there are 2 classes"),
        (predictions_of_other_images, r"has 17 rows, and there are 18 images in the order of their sorted ids"),
        (predictions_that_name_an_image_twice, r"names 'cat/0.png' more than once"),
        (predictions_that_are_pickled, r"holds pickled objects, which are not opened"),
        (predictions_that_are_cut_short, r"cut short"),
        (labels_instead_of_predictions, r"holds int64 \[18, 2\]; it needs floats"),
        (float_labels_to_rank, r"holds float64 \[3\]; labels are whole numbers"),
        (predictions_of_a_cycle_that_is_over, r"holds the predictions of cycle 0 .*predict again"),
        (predictions_for_a_run_that_trains, r"trains its own model: start a run with --predictions"),
        (votes_on_an_unknown_sample, r"votes.csv names 1 sample.* 'cow/0.png'"),
        (votes_for_an_unknown_class, r"votes.csv names 1 class.* 'cow'"),
        (votes_that_all_tie, r"annotations tie on all 18 images.*add annotations"),
        (the_same_vote_twice, r"'ann'.*'cat/0.png'.*keep one annotation"),
        (nobody_to_simulate, r"Nobody can be simulated.*--annotator person"),
        (forget_rate_of_one, r"--forget-rate is 1.0: give a number below 1"),
        (weights_of_another_network, r"not those of torchvision's mobilenet_v2: give the file"),
        (weights_of_another_timm_network, r"w.pth are not those of timm's test_resnet: give the file"),
        (a_timm_network_that_is_not_there, r'timm has no network "resnet19": did you mean timm:'),
        (weights_for_a_network_of_ours, r"--weights is for the networks of timm and torchvision.*: choose one"),
        (a_frozen_network_of_random_weights, r"small-cnn begins from random weights: choose torchvision:mobilenet_v2"),
        (a_factory_that_is_no_module, r"made a int, and must return a torch.nn.Module: correct it"),
        (a_factory_with_other_classes, r"must give logits \[N, 10\].*gave shape \[2, 7\] for two images: correct it"),
        (
            a_factory_with_operators_that_have_no_second_derivative,
            r"forward rule or a double backward, and this model has one with neither .*: write it in torch's own functions",
        ),
        (conjugate_gradients_that_do_not_converge, r"did not converge: the relative residual .* with more --damping"),
        (
            a_frozen_network_for_a_second_one,
            r"expected-influence needs a network that the run trains: leave --freeze out",
        ),
        (one_label_to_learn_and_to_hold_out, r"there is one alone: give --initial, at least 2"),
        (damping_below_zero, r"--damping is -1.*: give at least 0"),
        (influence_on_no_test_image, r"measured on the loss of test images.*: hold some out with --test-share"),
        (a_model_with_a_misspelt_name, r'--model is "resnet-18": choose one of small-cnn, .*MODULE:FACTORY'),
        (a_model_of_masks_for_classes, r'--model is "small-unet": choose one of small-cnn, .*MODULE:FACTORY'),
        (labels_of_another_project, r"export.json is of another project"),
        (labels_that_are_not_there, r"There is no file \S+labels.zip: give the path of the labels to import"),
        (labels_into_a_simulated_run, r"simulates its annotators: start one with --annotator person"),
        (nobody_left_to_ask, r"All 100 images of the pool have a label.*give --initial"),
        (simulated_annotators_in_active_learning, r"--annotator simulated belongs to label cleaning: leave it out"),
        (more_initial_labels_than_there_are, r"--initial is 20, but the pool holds \d+ images with a label"),
        (classes_that_the_folder_contradicts, r"'dog'.* is not one of the classes cat, elk"),
        (classes_of_a_set_that_has_its_own, r"--classes is for the data set folder, .* or webdataset: leave it out"),
        (
            train_that_leads_elsewhere,
            r"train is a link that leads out of the folder .*; put the images themselves there",
        ),
        (folder_of_other_files, r"there is no image in .*, but cat/notes.txt: not an image that can be read; expected"),
        (
            parquet_without_images,
            r"x.parquet holds no images: none of its columns \(text, label\).*give a data set of images",
        ),
        (
            csv_of_files_that_are_gone,
            r"no image that x.csv names can be read; the first one: a.png: there is no such file",
        ),
        (compressed_shards, r"x.tar cannot be read as an uncompressed tar file"),
        (masks_of_an_image_that_is_not_listed, r"x.json has an annotation of an image 2 that it does not list; export"),
        (a_crowd_of_polygons, r"a.png: its annotation 1 draws a crowd \(iscrowd 1\) with polygons; a crowd is an RLE"),
        (a_polygon_of_two_points, r"a.png: its annotation 1 has a polygon of 2 points; it takes 3 at least"),
        (run_lengths_of_another_image, r"a.png: its annotation 1 has an RLE of 60 pixels, and the image has 64"),
        (masks_that_nobody_has_drawn, r"No image of the pool has a label .*: choose .* or give --annotator person"),
        (masks_of_a_run_with_classes, r"labels of run .* are classes, not masks: export them as a table"),
        (annotations_of_another_kind, r"x.json is no file of COCO annotations: it has no list of annotations; export"),
        (
            nothing_but_images_of_40_000_pixels_a_side,
            r"can be read; the first one: .* more than 89,478,485 pixels; scale it",
        ),
        (a_fit_that_is_not_there, r'--fit is "squeeze": choose one of resize, crop, pad|invalid choice'),
        (
            a_fit_of_a_set_that_needs_none,
            r"--fit is for the data set folder, csv, coco, coco-masks, masks, parquet or webdataset: leave it out",
        ),
        (arm_that_is_not_there, r'no arm "simclr": choose of vanilla, co-teaching'),
        (truncated_cifar_batch, r"data_batch_3 is damaged.*; delete .* and unpack"),
        (
            counts_of_another_length,
            r"cifar10h-counts.npy should hold int64 \[10000, 10\].* holds int64 \[9999, 10\]; take",
        ),
        (no_folder, r"nowhere"),
        (folder_with_no_image, r"no image"),
        (folder_with_one_class, r"one class.*at least two"),
        (
            a_strategy_of_classes_for_masks,
            r"--strategy badge does not take masks, as those of garments are: choose one of random, ",
        ),
        (
            noise_of_classes_for_masks,
            r"--noise-kind symmetric is for labels of one class each, .*: choose one of mixed, shifted-borders",
        ),
        (noise_of_masks_for_classes, r"--noise-kind mixed is for masks, .*: choose one of symmetric, asymmetric"),
        (a_selector_of_classes_for_masks, r"--selector elr does not take masks, .*: choose one of vanilla, clean"),
        (pixels_of_classes, r"--budget-unit counts the pixels of masks: leave it out"),
        (
            a_model_of_classes_for_masks,
            r'--model is "resnet18", and the labels of garments are masks: choose one of small-unet, smp:',
        ),
        (
            a_frozen_network_for_masks,
            r"--freeze trains a linear head .*, and the labels of garments are masks: leave it out",
        ),
        (
            influence_of_masks,
            r"influence is computed where the label of an image is one class, and in this data set it is a mask",
        ),
        (class_weights_of_classes, r"--class-weights weighs the pixels of masks: leave it out"),
        (sequences_of_a_set_without_any, r"--per-group limits each sequence, and garments names none: leave it out"),
        (label_outside_the_classes, r"bird"),
        (budget_larger_than_the_pool, r"asks for 8,000 labels .* the pool holds 4,000 .*: lower the budget"),
        (limit_larger_than_the_pool, r"limit of 5000 .* choose from 1 to 4000"),
        (noise_out_of_reach, r"noise rate of 0.95 .*; choose between"),
        (no_epochs, r"--epochs is 0: give at least 1"),
        (learning_rate_that_diverges, r"diverged.*: use a lower learning rate"),
        (negative_seed, r"--seed is -1: give at least 0"),
        (noise_in_active_learning, r"--noise belongs to label cleaning: leave it out"),
        (subset_smaller_than_the_budget, r"less than the budget of 200 .*: rank at least as many"),
        (strategy_for_label_cleaning, r"core-set is a strategy of active learning: use --score"),
        (score_for_active_learning, r"cleaning is a score of label cleaning: use --strategy"),
        (two_ways_to_go_on, r"warm start and --finetune-epochs .*: give one of them"),
        (nothing_to_run, r"Say what to run: --task .* or --protocol"),
        (protocol_that_is_not_there, r'no protocol "imagenet": give a TOML file, or one of cifar10h-15'),
        (protocol_with_a_wrong_setting, r'mine.toml, \[run\]: there is no option "epoch": did you mean epochs\?'),
        (protocol_for_label_cleaning, r"A protocol says task, selector, score"),
        (comparison_of_a_run_that_is_not_there, r"no run .* `python -m core list` shows"),
        (
            output_that_cannot_be_written,
            r"There is no folder .*nowhere: make it",
        ),
        (more_votes_than_people, r"line 2 .* '1e30' .* not a number of annotations"),
        (a_name_too_long_for_a_file, r"line 2 .* add it or drop the line"),
        (home_that_is_a_file, r"is no folder: set NEXTLABEL_HOME"),
        (weights_that_are_gone, r"weights of the cycle before, which are not here: .* --with-weights"),
        (
            influence_on_a_model_that_is_gone,
            r"needs the weights of cycle 0 .*: choose another run or cycle, or restore",
        ),
        (unknown_run, r'no run "no-such-run" .*: `python -m core list`'),
        (a_path_for_a_run, r"no run"),
        (damaged_configuration, r"config.json is damaged: restore it or delete"),
        (two_workers_on_one_run, r"worked on by another process: wait for it, or cancel"),
        (data_that_changed_under_the_run, r"no longer holds .*: restore the data"),
        (images_added_under_the_run, r"no longer holds the 48 images .*, but 72: restore the data, or start a new run"),
        (home_that_cannot_be_written, r"Cannot write to .*: free some space or .* NEXTLABEL_HOME"),
        (figure_without_chrome, r"none was found: install one .* or export HTML"),
        (unknown_figure_format, r'"gif" is no figure format: choose one of png'),
        (cycle_that_is_not_there, r"no finished cycle yet: resume it"),
    ],
)
def test_one_sentence_and_exit_code_2(situation, says, tmp_path, home, request, capsys):
    arguments = situation(Situation(tmp_path, home, request))
    capsys.readouterr()
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    ours = [line for line in errors.splitlines() if line.startswith("nextlabel: ")]
    print(*ours)  # `pytest -s` shows them to whoever wants to read them
    assert len(ours) == 1
    assert "Traceback" not in errors
    assert re.search(says, ours[0]), ours[0]


def test_one_unreadable_image_among_many_is_left_out_and_named(tmp_path, home, request, capsys):
    root = Situation(tmp_path, home, request).pictures(cat=40, dog=40)
    (root / "cat" / "7.png").write_bytes(b"not an image")
    assert main([*LEARN, "--dataset", "folder", "--root", str(root), "--budget", "10", "--cycles", "2"]) == 0
    (skipped,) = run.all_runs()[0].about["skipped"]
    assert skipped[0] == "cat/7.png"


def test_thousands_of_files_left_out_are_counted_with_a_few_names(tmp_path, home, request, capsys):
    root = Situation(tmp_path, home, request).pictures(cat=40, dog=40)
    for i in range(3000):
        (root / "cat" / f"{i:04d}.txt").write_text("no image")
    (root / "dog" / "0.png").write_bytes(b"")
    task = [*LEARN, "--dataset", "folder", "--root", str(root), "--budget", "10", "--cycles", "1", "--json"]
    assert main(task) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if "left out" in line]
    assert re.fullmatch(
        r"3,001 files are left out: not an image that can be read \(3,001: cat/\d+.txt, cat/\d+.txt, cat/\d+.txt, …\)\.",
        line,
    )
    (group,) = json.loads(said.out)["skipped"]
    assert (group["reason"], group["n"], len(group["examples"])) == ("not an image that can be read", 3001, 3)
    (one,) = run.all_runs()[:1]
    assert len(one.about["skipped"]) == 3
    assert [(found.reason, found.n) for found in one.left_out()] == [(group["reason"], 3001)]
    assert (one.path / "config.json").stat().st_size < 10_000
    assert main(["resume", one.id]) == 0
    assert line in capsys.readouterr().err


def test_a_run_that_was_started_when_suffixes_counted_goes_on(tmp_path, home, request, capsys):
    root = Situation(tmp_path, home, request).pictures(cat=30, dog=30)
    assert main([*LEARN, "--dataset", "folder", "--root", str(root), "--budget", "10", "--cycles", "1"]) == 0
    (one,) = run.all_runs()[:1]
    content = json.loads((one.path / "config.json").read_text())
    del content["about"]["skipped_counts"], content["config"]["by_suffix"]
    (one.path / "config.json").write_text(json.dumps(content))
    for i in range(30):
        shutil.copy(root / "cat" / f"{i}.png", root / "cat" / f"{i}.jfif")
    assert main(["step", one.id]) == 0
    assert "30 files are left out: passed over when the run was started; start a new one" in capsys.readouterr().err
    assert len(one.cycles()) == 2


def test_a_posterior_that_is_not_a_number(tmp_path, home, request, monkeypatch, capsys):
    one = Situation(tmp_path, home, request).a_run()
    monkeypatch.setattr(inference.Scorer, "probs", lambda _: np.full((300, 10), np.nan, dtype=np.float32))
    assert main(["resume", one.id]) == 2
    assert "NaN, infinite or negative) for 300 of 300 samples" in capsys.readouterr().err
    assert one.log.phases()["phase"].tolist() == ["label", "train"]  # what was computed is kept
    assert one.status()[0] == "failed"


def test_a_full_disk(tmp_path, home, request, monkeypatch, capsys):
    one = Situation(tmp_path, home, request).a_run()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.store.log.os.fsync", full)
    assert main(["resume", one.id]) == 2
    assert re.search("No space left on device.*free some space.*is kept", capsys.readouterr().err)


def test_a_killed_worker_is_said_to_be_stopped_and_resumes(tmp_path, home, request, capsys):
    one = Situation(tmp_path, home, request).a_run(cycles=6)
    worker = forked.command("resume", one.id)
    forked.wait_until(lambda: one.log.phases()["phase"].isin(["score"]).any())
    worker.kill()
    worker.join()
    main(["show", one.id])
    assert re.search(
        r"stopped. Stopped after \d of 6 cycles; nothing finished is lost, and it can go on", capsys.readouterr().out
    )
    assert main(["resume", one.id]) == 0
    assert one.status()[0] == "finished"
