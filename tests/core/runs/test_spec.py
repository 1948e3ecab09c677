"""One specification: every option through command line, protocol, form, configuration file, bundle, comparability and Diff."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.__main__ import main, parsed
from core.analysis import diff
from core.files import bundle
from core.runs import run, same, settle, spec, study
from core.runs.spec import CLEANING, LEARNING, OPTIONS, Config
from data.files import archive

GIVEN = [name for name, one in OPTIONS.items() if one.option.level != "program"]
ABOUT = {
    "class_names": ["cat", "dog"],
    "n_samples": 400,
    "annotators": "none",
    "annotators_source": "",
    "skipped": [],
    "skipped_counts": {},
}
CONFIGS = {
    LEARNING: Config(task=LEARNING, dataset="folder", method="margin", budget=20, cycles=2),
    CLEANING: Config(task=CLEANING, dataset="folder", method="cleaning", budget=20, cycles=2),
}


def question(name):
    """The question that an option belongs to; label cleaning where it belongs to both, and all of its values do."""
    return LEARNING if name == "evidence" else OPTIONS[name].only or CLEANING


def another(name):
    """A value of an option that is not the one of `CONFIGS`."""
    one, plain = OPTIONS[name], getattr(CONFIGS[question(name)], name)
    if choices := one.choices(question(name)):
        return [choice for choice in choices if choice != plain][-1]
    if name == "earlier":
        return [{"until": 1, "gamma": 0.5}]
    return {bool: not plain, int: (plain or 0) + 7, float: (plain or 0.1) / 2 + 0.1, str: "/there", list: ["a", "b"]}[
        one.kind
    ]


def impossible(name):
    """(a value that an option cannot have, what the one sentence says after its name)."""
    one = OPTIONS[name]
    if choices := one.choices(question(name)):
        switch, others = spec.SWITCH if one.kind is bool else [], [one.option.also[1]] if one.option.also else []
        return "no-such", f'is "no-such": choose one of {", ".join([*switch, *choices, *others])}.'
    if one.kind is int:
        return int(one.low) - 1, f"is {int(one.low) - 1}: give at least {one.low}."
    if one.kind is float:
        return float("nan"), "is nan: give a"
    return 3, f"is 3: give {spec.KINDS[one.kind]}."


@pytest.mark.parametrize("name", GIVEN)
def test_the_command_line_takes_it_and_says_what_it_cannot_be(name, capsys):
    flag, value = spec.flag(name, question(name)), another(name)
    words = (
        [f"--{'' if value else 'no-'}{flag[2:]}"]
        if isinstance(value, bool)
        else [flag, *(value if isinstance(value, list) else [str(value)])]
    )
    found = getattr(parsed(["run", *words]), OPTIONS[name].named(question(name)))
    assert found == ([value] if OPTIONS[name].several(question(name)) else value)
    bad, said = impossible(name)
    if OPTIONS[name].kind in (int, float) or OPTIONS[name].choices(question(name)):
        assert main(["run", flag, str(bad)]) == 2
        assert capsys.readouterr().err.startswith(f"nextlabel: {flag} {said}")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--evidence"], True),
        (["--evidence", "true"], True),
        (["--no-evidence"], False),
        (["--evidence", "false"], False),
        (["--evidence", "influence"], "influence"),
        ([], None),
        (["--evidence", "--strategy", "egl"], True),
    ],
)
def test_evidence_alone_says_yes_as_it_always_did(words, value):
    found = parsed(["run", *words]).evidence
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("value", [True, False, "influence"])
def test_evidence_that_was_written_before_keeps_its_meaning(value, home, tmp_path):
    assert study.read(protocol(tmp_path / "mine.toml", "evidence", value)).run["evidence"] == value
    home.mkdir()
    one = run.create(dataclasses.replace(CONFIGS[LEARNING], evidence=value), ABOUT)
    assert one.config.evidence == value
    assert type(one.config.evidence) is type(value)


def test_help_describes_every_option_and_needs_no_torch(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    for name in GIVEN:
        for task in [flag.task for flag in OPTIONS[name].option.flags] or [None]:
            assert spec.flag(name, task) in text
            assert OPTIONS[name].describe(task).split(":")[0].replace("- ", "-") in text


def protocol(path: Path, name: str, value: object, wrote: str = "") -> str:
    """A protocol in which an option has a value; wrote: what stands there instead of the option's name."""
    task = question(name)
    sets = OPTIONS[name].option.sets if name in OPTIONS else ()
    dataset = "folder" if not sets or "folder" in sets else sets[0]
    run = {"task": task, "dataset": dataset, wrote or name: value}
    run |= {"model": "torchvision:resnet18"} if name == "freeze" else {}  # one that has weights to keep
    run |= {"dataset": "garments"} if name in ("class_weights", "budget_unit") else {}  # whose pixels have classes
    run |= {"model": "small-unet"} if spec.answer_of(run["dataset"]) == "mask" else {}
    lines = [f"{key} = {json.dumps(one).replace('NaN', 'nan')}" for key, one in run.items()]
    arm = "[[arms]]" if task == CLEANING else '[[arms]]\nmethod = "margin"'
    path.write_text('title = "Mine"\nseeds = [0]\n[run]\n' + "\n".join(lines) + f"\n{arm}\n")
    return str(path)


@pytest.mark.parametrize("name", [name for name in GIVEN if name not in ("method", "seed")])
def test_a_protocol_gives_it_and_is_refused_in_the_same_sentence(name, tmp_path):
    value = another(name) if name not in ("task", "dataset") else getattr(CONFIGS[CLEANING], name)
    assert study.read(protocol(tmp_path / "mine.toml", name, value)).run[name] == value
    bad, said = impossible(name)
    with pytest.raises(spec.UserError) as refused:
        study.read(protocol(tmp_path / "mine.toml", name, bad))
    assert str(refused.value).startswith(f"mine.toml, [run]: {name} {said}")


def test_a_protocol_gives_seeds_and_arms_by_lists_of_their_own(tmp_path):
    for name, said in (("seed", "given by seeds"), ("method", "given by strategies or arms")):
        with pytest.raises(spec.UserError, match=said):
            study.read(protocol(tmp_path / "mine.toml", name, another(name)))


def test_a_misspelt_option_is_answered_with_the_nearest_one(tmp_path, capsys):
    with pytest.raises(
        spec.UserError, match=r'mine.toml, \[run\]: there is no option "bach_size": did you mean batch_size\?'
    ):
        study.read(protocol(tmp_path / "mine.toml", "batch_size", 32, wrote="bach_size"))
    assert main(["run", "--bach-size", "32"]) == 2
    assert capsys.readouterr().err == "nextlabel: `run` has no option --bach-size: did you mean --batch-size?\n"


def shown(task, dataset, people):
    """The fields of the form of New run: title, and whether it is in sight."""

    def page(task, dataset, people):  # in a process of its own making: it sees no name of this module
        import streamlit as st

        from pages.ui import start

        st.session_state.setdefault("task", task)
        st.session_state.setdefault(f"people-{dataset}-/images-{task}", people)
        start.form(start.Images(dataset, "/images"))

    app = AppTest.from_function(page, default_timeout=120, args=(task, dataset, people)).run()
    assert not app.exception
    advanced = {one.label for expander in app.expander for kind in KINDS for one in expander.get(kind)}
    everything = {one.label for kind in KINDS for one in app.get(kind)}
    return everything - advanced, advanced


KINDS = ("selectbox", "number_input", "text_input", "toggle")
CHOSEN_ABOVE = (
    "task",
    "dataset",
    "root",
    "labels",
    "votes",
    "classes",
    "annotator",
    "predictions",
    "embeddings",
    "predicted",
)  # of which folder, and who answers


@pytest.mark.parametrize("task", [LEARNING, CLEANING])
@pytest.mark.parametrize("dataset", ["fashion", "folder"])
@pytest.mark.parametrize("people", [False, True])
def test_the_form_has_a_field_for_all_that_applies_and_for_nothing_else(task, dataset, people):
    basic, advanced = shown(task, dataset, people)
    everything = task == CLEANING and dataset == "folder" and people
    for name in GIVEN:
        one = OPTIONS[name]
        if name in CHOSEN_ABOVE or (name == "test_share" and everything):
            continue
        there = one.applies(task, dataset, people)
        assert (one.headed(task) in basic) == (there and one.option.level == "basic"), name
        assert (one.headed(task) in advanced) == (there and one.option.level == "advanced"), name


@pytest.mark.parametrize("name", GIVEN)
def test_the_form_is_answered_in_the_same_sentence(name):
    bad, said = impossible(name)
    title = OPTIONS[name].headed(question(name))
    with pytest.raises(spec.UserError) as refused:
        spec.check({name: bad}, lambda name: OPTIONS[name].headed(question(name)), task=question(name))
    assert str(refused.value).startswith(f"{title} {said}")


def test_a_field_of_the_form_hands_on_what_is_out_of_bounds():
    """A field with bounds of its own would keep that in the browser, and the run start with the value before."""

    def page():
        from streamlit import session_state

        from pages.ui import start

        session_state["given"] = start.form(start.Images("fashion"))

    app = AppTest.from_function(page, default_timeout=120).run()
    (epochs,) = (one for one in app.number_input if one.label == "Epochs")
    epochs.set_value(0).run()
    with pytest.raises(spec.UserError, match="Epochs is 0: give at least 1"):
        spec.check(app.session_state["given"], lambda name: OPTIONS[name].headed(LEARNING), task=LEARNING)


def changed(name):
    """A configuration, and one that differs from it in this option alone."""
    one = CONFIGS[question(name)]
    return one, dataclasses.replace(one, **{name: another(name)})


ALIKE = {
    "data": (),
    "labels": (same.IMAGES,),
    "method": (same.IMAGES, same.START),
    "lineage": (same.IMAGES, same.START),
}
ALIKE |= {"arm": (*ALIKE["method"], same.SETTING), "plan": (*ALIKE["method"], same.SETTING)}
ALIKE |= {"nuisance": (*ALIKE["arm"], same.EXPERIMENT)}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_it_decides_says_which_runs_are_alike(name, home):
    home.mkdir()
    first, second = (run.create(config, ABOUT) for config in changed(name))
    alike = [
        how
        for how in (same.IMAGES, same.START, same.SETTING, same.EXPERIMENT)
        if not same.differing(first, second, how)
    ]
    assert alike == list(ALIKE[OPTIONS[name].option.identity])
    assert same.alike(first, [second], same.EXPERIMENT) == ([second] if same.EXPERIMENT in alike else [])


@pytest.mark.parametrize("name", OPTIONS)
def test_diff_lists_it_where_it_says_how_a_run_works(name):
    table = diff.settings(*changed(name))
    told = OPTIONS[name].option.identity not in ("data", "lineage") and OPTIONS[name].option.level != "program"
    named = OPTIONS[name].named(CLEANING if name != "task" else None).replace("_", " ")
    assert table["setting"].tolist() == ([named] if told else [])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_configuration_file_keeps_it_and_is_refused_in_the_same_sentence(name, home):
    home.mkdir()
    one = run.create(changed(name)[1], ABOUT)
    assert getattr(one.config, name) == another(name)
    path = one.path / "config.json"
    content = json.loads(path.read_text())
    content["config"][name] = {} if OPTIONS[name].choices(question(name)) else impossible(name)[0]
    path.write_text(json.dumps(content))
    with pytest.raises(spec.UserError, match=rf"config.json is damaged \({name} is .*: (give|choose)"):
        _ = one.config


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bundle_is_refused_in_the_same_sentence(name, home):
    bad, said = impossible(name)
    content = spec.for_file(CONFIGS[question(name)])
    content["config"][name] = bad
    file = io.BytesIO()
    with archive.Writer(file) as out:
        out.add("config.json", json.dumps({**content, "about": ABOUT}).encode())
        out.add("manifest.json", json.dumps({**MANIFEST, "files": dict(out.files)}).encode())
    with pytest.raises(spec.UserError) as refused:
        bundle.opened(file)
    named = OPTIONS[name].named(question(name))
    same = [f"its configuration cannot run: {named} {said.rstrip('.')}", f"{name} {said.rstrip('.')}"]
    if name in ("dataset", "method", "selector"):  # it may be a plug-in of where the bundle was made
        same.append('"no-such", which is not installed here')
    assert any(sentence in str(refused.value) for sentence in same)


MANIFEST = {"format": bundle.FORMAT, "version": bundle.VERSION, "run": "mine", "images": "left out"}


def test_files_of_version_1_are_read_without_what_had_no_effect():
    settings = dataclasses.asdict(CONFIGS[LEARNING]) | {"gamma": 0.3, "folds": 5}
    assert spec.of_file({"config": settings}) == CONFIGS[LEARNING]
    del settings["image_size"], settings["gamma"], settings["folds"]
    assert spec.of_file({"config": settings}) == CONFIGS[LEARNING]


def test_a_configuration_of_a_later_version_is_refused_with_the_reason(home):
    home.mkdir()
    one = run.create(CONFIGS[LEARNING], ABOUT)
    path = one.path / "config.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(spec.UserError, match="has version 3, and this NextLabel reads up to 2: install a later one"):
        _ = one.config


@pytest.mark.parametrize("version", [0, "2", 2.0, None, True])
def test_a_version_that_is_none_is_damage(version, home):
    with pytest.raises(TypeError):
        spec.of_file(spec.for_file(CONFIGS[LEARNING]) | {"version": version})


def test_several_mistakes_are_told_one_at_a_time():
    with pytest.raises(spec.UserError, match=r"^--epochs is 0: give at least 1\.$"):
        dataclasses.replace(CONFIGS[LEARNING], epochs=0, lr=0.0)


def test_a_configuration_that_lacks_an_option_is_damaged(home):
    home.mkdir()
    one = run.create(CONFIGS[LEARNING], ABOUT)
    path = one.path / "config.json"
    content = json.loads(path.read_text())
    del content["config"]["cycles"]
    path.write_text(json.dumps(content))
    with pytest.raises(spec.UserError, match=r"config\.json is damaged: restore it"):
        _ = one.config


def test_an_option_of_the_other_question_is_refused(tmp_path):
    with pytest.raises(spec.UserError, match="--folds belongs to label cleaning: leave it out"):
        settle.check({**dataclasses.asdict(CONFIGS[LEARNING]), "folds": 2})
    with pytest.raises(spec.UserError, match="--subset belongs to active learning: leave it out"):
        settle.check({**dataclasses.asdict(CONFIGS[CLEANING]), "subset": 100})


def test_an_option_of_another_data_set_is_refused():
    with pytest.raises(spec.UserError, match=r"--image-size is for .* webdataset or noisycxr: leave it out"):
        settle.check({"task": LEARNING, "dataset": "cifar10h", "image_size": 32})


def test_the_images_of_a_folder_come_to_the_size_that_is_given(tmp_path):
    import numpy as np
    from PIL import Image

    import data

    for k, label in enumerate(("cat", "dog")):
        (tmp_path / label).mkdir()
        for i in range(4):
            Image.fromarray(np.full((12, 9), 90 * k + i, np.uint8)).save(tmp_path / label / f"{i}.png")
    config = dataclasses.replace(CONFIGS[CLEANING], root=str(tmp_path), image_size=20)
    assert data.load("folder", tmp_path, **config.load_options).images.shape[1:] == (20, 20, 1)
