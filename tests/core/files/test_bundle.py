"""A run as one file: opened elsewhere it shows the same figures; what is no bundle, or a dangerous one, is refused."""

import dataclasses
import hashlib
import io
import json
import stat
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data
from core.__main__ import main
from core.analysis import curves
from core.analysis.figures import FIGURES, figure
from core.cli.shared import load
from core.engine import loop
from core.files import bundle
from core.runs import attribution, removal, run, settle
from core.runs.attribution import Attribution, Effect, Layer
from core.runs.spec import Config
from data.errors import UserError
from data.files import packed
from tests.core.runs.test_removal import of_values

EXAMPLES = run.EXAMPLES
SMALL = {"width": 4, "epochs": 1, "batch_size": 16, "cycles": 2}


def figures(found, names=("curves", "distribution", "map")):
    """The figures of a run as JSON."""
    return {name: figure(found, load(found), name, len(found.cycles()) - 1).to_json() for name in names}


@pytest.fixture
def home(home, monkeypatch):
    """An empty NEXTLABEL_HOME, with the examples beside it."""
    monkeypatch.setattr(run, "EXAMPLES", EXAMPLES)
    return home


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another installation: call it to move there, to an empty home, no data and no examples."""

    def go():
        monkeypatch.setattr(run, "EXAMPLES", tmp_path / "no-examples")
        monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "no-data"))

    return go


@pytest.fixture
def folder(tmp_path):
    """Sixty pictures of a user in two classes."""
    for label in range(2):
        for i in range(30):
            path = tmp_path / "mine" / f"class {label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (200 * label, 8 * i, 90)).save(path)
    return tmp_path / "mine"


def own(folder, **settings):
    """A finished run on one's own pictures."""
    pool = data.load("folder", folder)
    config = Config("active-learning", "folder", "margin", 10, root=str(folder), **{**SMALL, **settings})
    made = run.create(settle.prepare(config, pool), settle.about(pool))
    loop.work(made, pool)
    return made


def example_run(task):
    return run.Run(EXAMPLES / f"example-{task}")


@pytest.mark.parametrize("task", ["active-learning", "label-cleaning"])
def test_a_run_on_embedded_data_shows_the_same_figures_elsewhere(home, elsewhere, task, tmp_path):
    there = example_run(task)
    (tmp_path / "f.zip").write_bytes(bundle.to_bytes(there, load(there)))
    names = [name for name in FIGURES if name != "policies" or task == "label-cleaning"]
    drawn, events, summary = figures(there, names), there.log.events(), json.dumps(curves.summary(there, load(there)))
    elsewhere()
    here = bundle.opened(tmp_path / "f.zip")
    assert figures(here, names) == drawn
    pd.testing.assert_frame_equal(here.log.events(), events)
    assert json.dumps(curves.summary(here, load(here))) == summary
    assert here.status()[0] == "finished"


def test_own_pictures_travel_with_the_run_if_asked_for(home, elsewhere, folder, tmp_path):
    there = own(folder)
    dataset, drawn = load(there), figures(there)
    with_images = bundle.to_bytes(there, dataset, images=True, weights=True)
    without = bundle.to_bytes(there, dataset)
    assert str(tmp_path).encode() not in b"".join(
        zipfile.ZipFile(io.BytesIO(content)).read(name) for content in (with_images, without)
        for name in ("config.json", "manifest.json", "data/dataset.json")
    )  # fmt: skip
    elsewhere()
    here = bundle.opened(io.BytesIO(with_images))
    assert figures(here) == drawn
    assert np.array_equal(load(here).images, dataset.images)
    here.log.set_fact("target", 3)
    loop.work(here, load(here))  # it can go on
    assert len(here.cycles()) == 3


def test_what_was_left_out_is_known_elsewhere(home, elsewhere, folder):
    for i in range(50):
        (folder / f"{i}.txt").write_text("no image")
    there = own(folder)
    said, content = there.left_out(), bundle.to_bytes(there, load(there))
    elsewhere()
    assert bundle.opened(io.BytesIO(content)).left_out() == said
    assert said[0].n == 50


def test_without_its_pictures_a_run_shows_its_figures_and_cannot_go_on(home, elsewhere, folder, capsys):
    there = own(folder)
    drawn, content = figures(there), bundle.to_bytes(there, load(there))
    elsewhere()
    here = bundle.opened(io.BytesIO(content))
    assert figures(here) == drawn
    assert np.unique(load(here).images).tolist() == [packed.GREY]
    with pytest.raises(UserError, match="without its images"):
        loop.work(here, load(here))
    for command in (["step", here.id], ["branch", here.id, "--strategy", "random"]):
        capsys.readouterr()
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "without its images" in said
        assert "Traceback" not in said


def test_the_command_line_bundles_opens_and_draws(home, elsewhere, folder, tmp_path, capsys):
    there = own(folder)
    assert main(["bundle", there.id, "--out", str(tmp_path / "f.zip"), "--with-images"]) == 0
    elsewhere()
    assert main(["open", str(tmp_path / "f.zip")]) == 0
    assert there.id in capsys.readouterr().out
    assert main(["export", there.id, "--figure", "curves", "--out", str(tmp_path / "c.html")]) == 0
    assert main(["open", str(tmp_path / "f.zip")]) == 2
    assert "already" in capsys.readouterr().err


def test_equal_runs_make_equal_bundles(home):
    there = example_run("random")
    assert bundle.to_bytes(there, load(there)) == bundle.to_bytes(there, load(there))


def test_influences_that_were_computed_travel_along(home, folder, elsewhere):
    there = own(folder)
    pool = load(there)
    effects = (Effect(2, 1, 0, 0.75, -0.5),)
    found = Attribution(
        pool.ids[4], 1, -0.25, 10, 6, 2, 4, (), effects, (Layer("head", "Linear", 3, -0.25),), 0.01, 1e-4, 5
    )
    attribution.write(there, 1, 4, found)
    content = bundle.to_bytes(there, pool)
    elsewhere()
    opened = bundle.opened(io.BytesIO(content))
    assert attribution.kept(opened, load(opened), 1) == {4: found}
    assert attribution.kept(opened, load(opened), 0) == {}


def test_too_many_images_are_named(home, monkeypatch, folder):
    monkeypatch.setattr(bundle, "MOST_IMAGES", 100)
    there = own(folder)
    with pytest.raises(UserError, match="make it without them"):
        bundle.to_bytes(there, load(there), images=True)


def test_a_run_without_a_cycle_makes_no_bundle(home):
    pool = data.load("fashion", limit=100)
    config = settle.prepare(Config("active-learning", "fashion", "margin", 10, limit=100, **SMALL), pool)
    with pytest.raises(UserError, match="no finished cycle"):
        bundle.to_bytes(run.create(config, settle.about(pool)), pool)


# What must not be opened: each a change to a good bundle


@pytest.fixture(scope="module")
def good():
    """The files of a good bundle."""
    there = example_run("random")
    archive = zipfile.ZipFile(io.BytesIO(bundle.to_bytes(there, load(there))))
    return {name: archive.read(name) for name in archive.namelist()}


def zipped(files, change=lambda archive: None, *, seal=True):
    """A bundle of these files, its manifest made to fit."""
    files = dict(files)
    if seal:
        manifest = json.loads(files["manifest.json"])
        others = {name: content for name, content in files.items() if name != "manifest.json"}
        manifest["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in others.items()
        }
        files["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        change(archive)
    buffer.seek(0)
    return buffer


def changed(files, name, **changes):
    """The files with fields of one of them changed."""
    content = json.loads(files[name])
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for key in parents:
            place = place[key]
        place[last] = value
    return {**files, name: json.dumps(content).encode()}


def table(files, name, change):
    """The files with one Parquet table changed."""
    found = pd.read_parquet(io.BytesIO(files[name]))
    change(found)
    return {**files, name: bundle._parquet(found)}


def refused(home, file, match):
    with pytest.raises(UserError, match=match):
        bundle.opened(file)
    assert all(found.is_example for found in run.all_runs())
    assert not list((home / ".cache").glob("opening-*"))


def test_the_files_of_a_good_bundle_can_be_zipped_anew(home, good):
    assert bundle.opened(zipped(changed(good, "manifest.json", run="mine"))).id == "mine"


def test_folders_that_a_zip_program_added_do_no_harm(home, good):
    assert bundle.opened(zipped(good, lambda archive: archive.mkdir("cycle-000"))).id


def test_the_bundle_of_an_example_does_not_take_its_name(home, good):
    opened = bundle.opened(zipped(good))
    assert opened.id == "example-random-opened"
    assert [found.id for found in run.all_runs()].count("example-random") == 1
    assert run.find("example-random").is_example


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b/c", "cycle-000/../../evil", "evil.py", "data/x.pkl"])
def test_names_that_are_not_ours_are_refused(home, good, name):
    refused(home, zipped({**good, name: b"x"}), "does not belong there|leads out of its folder")


def test_links_are_refused(home, good):
    def link(archive):
        entry = zipfile.ZipInfo("cycle-009/posterior.npy")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")

    refused(home, zipped(good, link), "link")


def test_bombs_are_refused(home, good, monkeypatch):
    monkeypatch.setattr("data.files.archive.SMALL", 1 << 20)
    refused(
        home, zipped({**good, "data/images.npy": bytes(300 << 20)}), "unpacks to 3.. MB, more than 200 times its size"
    )


def test_a_huge_text_is_refused(home, good, monkeypatch):
    monkeypatch.setattr(bundle, "MOST_TEXT", 1 << 16)
    refused(home, zipped({**good, "facts.json": b'{"machine": "' + b"x" * (1 << 17) + b'"}'}), "is too large")


def test_a_changed_file_is_refused(home, good):
    refused(home, zipped({**good, "phases.json": good["phases.json"] + b" "}, seal=False), "not what the manifest says")
    refused(
        home, zipped({k: v for k, v in good.items() if k != "phases.json"}, seal=False), "not those of its manifest"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no zip at all"])
def test_what_is_no_zip_is_refused(home, content):
    refused(home, io.BytesIO(content), "it cannot be read")


def test_a_missing_file_is_named(home, tmp_path):
    refused(home, tmp_path / "nowhere.zip", "There is no file")


def test_pickles_are_refused(home, good):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(home, zipped({**good, "cycle-000/posterior.npy": buffer.getvalue()}), "do not fit together")


@pytest.mark.parametrize(("name", "changes", "match"), [
    ("manifest.json", {"run": "../evil"}, "manifest"),
    ("manifest.json", {"run": ".hidden"}, "manifest"),
    ("manifest.json", {"format": "other"}, "manifest"),
    ("manifest.json", {"version": 99}, "another version"),
    ("config.json", {"version": 3}, "has version 3, and this NextLabel reads up to 2: install a later one"),
    ("config.json", {"version": "2"}, "do not fit"),
    ("config.json", {"config__method": "no-such"}, 'the strategy "no-such", which is not installed here'),
    ("config.json", {"config__dataset": "no-such"}, 'the data set "no-such", which is not installed here'),
    ("config.json", {"config__epochs": "many"}, 'epochs is "many": give a whole number'),
    ("config.json", {"config__invented": 1}, 'there is no option "invented"'),
    ("config.json", {"config__folds": 2}, "folds belongs to label cleaning"),
    ("config.json", {"config__cycles": 0}, "cycles is 0: give at least 1"),
    ("config.json", {"config__seed": 10**29}, "seed is 1000.*: give at most 4294967295"),
    ("config.json", {"config__seed": 2**32}, "seed is 4294967296: give at most 4294967295"),
    ("config.json", {"config__relabel_seed": -1}, "relabel_seed is -1: give at least 0"),
    ("config.json", {"config__lr": float("nan")}, "lr is nan: give a finite number"),
    ("config.json", {"config__budget": [20]}, r"budget is \[20\]: give a whole number"),
    ("config.json", {"config__budget": 10**6}, "asks for"),
    ("config.json", {"config__study": 7}, "study is 7"),
    ("config.json", {"config__study": "../evil"}, "names what cannot be"),
    ("config.json", {"config__parent": "a/b"}, "names what cannot be"),
    ("config.json", {"config__classes": [1]}, "classes"),
    ("config.json", {"config__earlier": [{"until": 1, "root": "/etc"}]}, "cannot run"),
    ("config.json", {"config__earlier": [{"until": "1"}]}, "cannot run"),
    ("config.json", {"config__earlier": [{"until": 1, "method": "no-such"}]}, "no-such"),
    ("config.json", {"about__class_names": ["a", "b"]}, "not those that it was made on"),
    ("facts.json", {"target": 10**29}, "do not fit"),
    ("config.json", {"about__class_names": [1, 2]}, "classes"),
    ("config.json", {"about__skipped_counts": {"cut": "many"}}, "do not fit"),
    ("config.json", {"about__skipped_counts": ["cut"]}, "do not fit"),
    ("config.json", {"about__n_samples": 7}, "not those that it was made on"),
    ("phases.json", {}, None),
])  # fmt: skip
def test_odd_settings_are_refused(home, good, name, changes, match):
    if match is None:
        refused(home, zipped({**good, name: b"[]"}), "no finished cycle")
        refused(home, zipped({**good, name: b"[" * 100_000}), "do not fit")
    else:
        refused(home, zipped(changed(good, name, **changes)), match)


def with_removal(files, **changes):
    """The files with a removal study of the second cycle."""
    ids = load(example_run("random")).ids[:4]
    found = dataclasses.asdict(dataclasses.replace(of_values([1, -2, 3, 4], [1]), sample_ids=ids, cycle=1))
    return {**files, "cycle-001/removal.json": json.dumps({**found, **changes}).encode()}


def test_a_removal_study_travels_with_the_run(home, good):
    here = bundle.opened(zipped(with_removal(good)))
    found = removal.read(here, 1)
    assert found.influence == [1, -2, 3, 4]
    again = zipfile.ZipFile(io.BytesIO(bundle.to_bytes(here, load(here)))).read("cycle-001/removal.json")
    assert removal.parsed(again) == found


@pytest.mark.parametrize("changes", [{"cycle": 0}, {"sample_ids": list("abcd")}, {"losses": ["1", "2"]}, {"more": 1}])
def test_a_removal_study_that_does_not_fit_is_refused(home, good, changes):
    refused(home, zipped(with_removal(good, **changes)), "do not fit")


def test_why_influence_is_not_known_is_the_one_text_among_measures(home, good):
    phases = json.loads(good["phases.json"])
    phases[-1]["result"]["influence_failed"] = "The curvature is singular."
    here = bundle.opened(zipped({**good, "phases.json": json.dumps(phases).encode()}))
    assert here.cycles()["influence_failed"].iloc[-1] == "The curvature is singular."


@pytest.mark.parametrize("value", [10**29, float("inf"), "text"])
def test_measures_that_no_table_holds_are_refused(home, good, value):
    phases = json.loads(good["phases.json"])
    phases[-1]["result"]["accuracy"] = value
    refused(home, zipped({**good, "phases.json": json.dumps(phases).encode()}), "do not fit")


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"sample_id": "x"}',
        attribution.to_json(Attribution("another", 1, 0.0, 1, 1, 0, 0, (), (), (), 0.01, 0.0, 0)),
        attribution.to_json(Attribution("first", 99, 0.0, 1, 1, 0, 0, (), (), (), 0.01, 0.0, 0)),
    ],
)
def test_influences_that_are_none_are_refused(home, good, content):
    first = pd.read_parquet(io.BytesIO(good["cycle-000/ranking.parquet"]))["sample_id"][0]
    content = content.replace(b'"first"', json.dumps(first).encode())
    refused(home, zipped({**good, "cycle-001/influence-000000.json": content}), "its contents do not fit together")


def test_images_of_a_huge_shape_that_are_not_there_cost_nothing(home, elsewhere, folder):
    there = own(folder)
    archive = zipfile.ZipFile(io.BytesIO(bundle.to_bytes(there, load(there))))
    files = {name: archive.read(name) for name in archive.namelist()}
    elsewhere()
    here = bundle.opened(zipped(changed(files, "data/dataset.json", shape=[16384, 16384, 3])))
    assert max(load(here).images[0].shape) == packed.PLACEHOLDER


def test_images_are_of_the_shape_that_the_bundle_names(home, elsewhere, folder):
    there = own(folder)
    archive = zipfile.ZipFile(io.BytesIO(bundle.to_bytes(there, load(there), images=True)))
    files = {name: archive.read(name) for name in archive.namelist()}
    elsewhere()
    for shape in ([16384, 16384, 3], [8, 8, 1], [8, 8]):
        with pytest.raises(UserError, match="damaged"):
            bundle.opened(zipped(changed(files, "data/dataset.json", shape=shape)))
    cut = {**files, "data/images.npy": files["data/images.npy"][:-100]}
    with pytest.raises(UserError, match="damaged"):
        bundle.opened(zipped(cut))


@pytest.mark.parametrize(("name", "change"), [
    ("events.parquet", lambda t: t.__setitem__("label", 99)),
    ("events.parquet", lambda t: t.__setitem__("sample_id", "stranger")),
    ("events.parquet", lambda t: t.__setitem__("seq", 1)),
    ("cycle-000/ranking.parquet", lambda t: t.__setitem__("suggested", 99)),
    ("cycle-000/ranking.parquet", lambda t: t.__setitem__("random", "text")),
    ("cycle-000/ranking.parquet", lambda t: t.__setitem__("sample_id", t["sample_id"][::-1].to_numpy())),
])  # fmt: skip
def test_odd_tables_are_refused(home, good, name, change):
    refused(home, zipped(table(good, name, change)), "do not fit")


def test_facts_that_are_no_facts_of_a_run_are_left_out(home, good):
    facts = {"machine": "x", "error": "boo", "evaluation/x": {"accuracy": 1}, "anything": "else", "target": 4}
    facts |= {"take/0": 7, "take/1": -7, "take/2": "7", "take/x": 7}
    found = bundle.opened(zipped({**good, "facts.json": json.dumps(facts).encode()}))
    assert found.log.facts("") == {"machine": "x", "target": 4, "take/0": 7}


def test_an_opened_run_that_is_moved_finds_its_data(home, folder):
    there = own(folder)
    content = bundle.to_bytes(there, load(there), images=True)
    there.path.rename(home / "the first one")
    here = bundle.opened(io.BytesIO(content))
    here.path.rename(home / "renamed")
    renamed = run.find("renamed")
    assert len(load(renamed)) == renamed.about["n_samples"]


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A run on masks, of two cycles."""
    pool = data.load("garments", limit=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("masked")))
        settings = {"task": "active-learning", "dataset": "garments", "limit": 16, "method": "margin", "budget": 4}
        asked = Config(**settings, cycles=2, model="small-unet", width=4, steps=2, batch_size=4)
        one = run.create(settle.prepare(asked, pool), settle.about(pool))
        loop.work(one, pool)
    return one


def test_a_run_on_masks_brings_its_masks_and_goes_on(masked, tmp_path, elsewhere):
    bundle.write(masked, load(masked), tmp_path / "masked.zip", weights=True)
    elsewhere()
    found = bundle.opened(tmp_path / "masked.zip")
    pool = load(found)
    assert found.log.events().equals(masked.log.events())
    np.testing.assert_array_equal(found.standing(pool)[:], masked.standing(pool)[:])
    for name in ("predicted.npy", "entropies.npy"):
        assert (found.cycle_path(1) / name).read_bytes() == (masked.cycle_path(1) / name).read_bytes()
    assert found.class_iou().equals(masked.class_iou())
    found.log.set_fact("target", 3)
    loop.work(found, pool)
    assert len(found.log.labels()) == 12


def other_mask(content, name):
    """Another picture in the place of a mask."""
    buffer = io.BytesIO()
    Image.new("P", (64, 64), 3).save(buffer, "PNG")
    return buffer.getvalue() if name.endswith(".png") else content


def too_large_a_mask(content, name):
    buffer = io.BytesIO()
    Image.new("P", (4000, 4000), 3).save(buffer, "PNG")
    return buffer.getvalue() if name.endswith(".png") else content


def unknown_class(content, name):
    if not name.endswith("predicted.npy"):
        return content
    array = np.load(io.BytesIO(content)).copy()
    array[0, 0, 0] = 200
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def spoiled(whole, harm, path):
    """A bundle whose manifest fits its files, which are no longer what they were."""
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(path, "w") as after:
        contents = {name: harm(before.read(name), name) for name in before.namelist()}
        manifest = json.loads(contents[bundle.MANIFEST])
        manifest["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
            if name != bundle.MANIFEST
        }
        contents[bundle.MANIFEST] = json.dumps(manifest).encode()
        for name, content in contents.items():
            after.writestr(name, content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("harm", [other_mask, too_large_a_mask, unknown_class])
def test_a_run_on_masks_whose_masks_do_not_fit_is_refused(harm, masked, tmp_path, elsewhere):
    bad = spoiled(bundle.to_bytes(masked, load(masked)), harm, tmp_path / "bad.zip")
    elsewhere()
    with pytest.raises(UserError, match="no bundle that can be opened"):
        bundle.opened(bad)
    assert not list((tmp_path / "elsewhere").glob("2*"))


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A run that checks masks, of two cycles."""
    pool = data.load("garments", limit=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("checked")))
        settings = {"task": "label-cleaning", "dataset": "garments", "limit": 16, "method": "cleaning", "budget": 4}
        noise = {"noise": 0.3, "noise_kind": "mixed"}
        asked = Config(**settings, **noise, cycles=2, model="small-unet", width=4, steps=2, batch_size=4)
        one = run.create(settle.prepare(asked, pool), settle.about(pool))
        loop.work(one, pool)
    return one


def test_a_run_that_checks_masks_brings_its_regions_and_goes_on(checked, tmp_path, elsewhere):
    bundle.write(checked, load(checked), tmp_path / "checked.zip", weights=True)
    elsewhere()
    found = bundle.opened(tmp_path / "checked.zip")
    for cycle in range(2):
        assert found.regions(cycle).equals(checked.regions(cycle))
    found.log.set_fact("target", 3)
    loop.work(found, load(found))
    assert found.cycles()["n_labels"].tolist() == [0, 4, 8]


def unknown_class_of_a_region(content, name):
    if not name.endswith("regions.parquet"):
        return content
    return bundle._parquet(pd.read_parquet(io.BytesIO(content)).assign(label=11))


@pytest.mark.slow
def test_a_run_with_odd_regions_is_refused(checked, tmp_path, elsewhere):
    bad = spoiled(bundle.to_bytes(checked, load(checked)), unknown_class_of_a_region, tmp_path / "bad.zip")
    elsewhere()
    with pytest.raises(UserError, match="no bundle that can be opened"):
        bundle.opened(bad)


@pytest.mark.slow
def test_odd_regions_are_not_taken(checked, tmp_path):
    pool = load(checked)
    for change in ({"sample_id": "elsewhere"}, {"status": "<b>"}, {"pixels": "many"}, {"rank": "first"}):
        checked.regions(0).assign(**change).to_parquet(tmp_path / "regions.parquet")
        with pytest.raises(ValueError, match=r"^$"):
            bundle._regions(tmp_path / "regions.parquet", pool)
