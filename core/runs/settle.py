"""A configuration made ready to run: defaults for what was left open, checks against the data."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import data
from core import methods, metrics, regions
from core.described import Method
from core.runs import answers, imported, spec
from core.runs.reference import clean_labels, initial_labels, reference_counts, reference_labels
from core.runs.run import SKIPPED_COUNTS
from core.runs.spec import Config
from data import ImageDataset, annotations, votes
from data.dataset import has_label
from data.errors import UserError
from data.files import skipped

STRATEGY = "entropy-gradnorm"  # of active learning, where nobody chose another
UNTRAINED_STRATEGY = "margin"  # the same where predictions are imported, which have no gradients
# What a newcomer gets: minutes on two CPU cores. Data sets that are not named take their task's last line. Active learning
# trains on a few hundred images, so that its batches are small: many steps matter more than smooth ones.
FEW_LABELS = {"lr": 0.05, "batch_size": 32}
# 480 steps left a narrow ResNet at 58.6 % of its own 2,000 training images of CIFAR-10, 2,520 took it to 83.7 %
STEPS = 2_500
# A training takes so many steps whatever the labels. After 300 on 37 images of CamVid the mean IoU was 0.30, and 0.26 with
# weights of the classes
MASKS = {
    "model": "small-unet",
    "width": 16,
    "batch_size": 8,
    "steps": 600,
    "lr": 0.1,
}
PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    (spec.LEARNING, "fashion"): {
        "model": "small-cnn",
        "width": 16,
        "epochs": 60,
        "budget": 200,
        "cycles": 5,
        **FEW_LABELS,
    },
    (spec.LEARNING, "cifar10"): {
        "model": "resnet18",
        "width": 16,
        "epochs": 20,
        "budget": 500,
        "cycles": 4,
        "steps": STEPS,
        **FEW_LABELS,
    },
    (spec.LEARNING, ""): {
        "model": "resnet18",
        "width": 16,
        "epochs": 20,
        "budget": 200,
        "cycles": 4,
        "steps": STEPS,
        **FEW_LABELS,
    },
    (spec.LEARNING, "camvid"): {**MASKS, "budget": 18, "initial": 37, "cycles": 7},
    (spec.LEARNING, "mask"): {**MASKS, "budget": 20, "cycles": 4},
    (spec.CLEANING, "mask"): {**MASKS, "cycles": 4, "noise_kind": next(iter(answers.MaskAnswer.noise_kinds))},
    (spec.CLEANING, "fashion"): {"model": "small-cnn", "width": 16, "epochs": 10, "finetune_epochs": 4, "cycles": 4},
    (spec.CLEANING, ""): {"model": "resnet18", "width": 16, "epochs": 20, "finetune_epochs": 4, "cycles": 2},
}
IMPORTED = "imported"  # the selector of predictions that a model of the user's own made
# Options that are for masks, and what they do with their pixels
OF_MASKS = {"class_weights": "weighs", "budget_unit": "counts"}
# Options that are for classes, and what they do
NO_MASKS = {
    "freeze": "trains a linear head on one embedding of each image",
    "predictions": "are one probability for each class and image",
    "votes": "counts annotations by class",
    "forget_rate": "belongs to the selector co-teaching",
    "pretrain_epochs": "belongs to the selector ssl",
    "head": "belongs to the selectors ssl and pretrained",
    "backbone": "belongs to the selector pretrained",
}
NEED_MODEL = ("folds", "ensemble", "static", "evidence")  # options of which nothing is left where no model is trained
PEOPLES_FOLDS = 5  # where people check labels: a model that has learnt a wrong label no longer finds it
VOTES_SCORE = "self-confidence"  # the default where several people's votes are checked: see results/votes
# Learning rate from weights that were learnt elsewhere. After 8 epochs on 300 images of CIFAR-10, MobileNetV2 knew 97.7 % of them
# and 63 % of 400 others; at 0.05, 23 and 19 %
FINE_TUNING = 0.01
SMALL = 64  # pixels of the longer side, at most: no photograph
EVIDENCE = {"pretrained": 0.63, "vanilla": 0.46}  # results/cifar10h-15: AUC between random, 0, and oracle, 1
# Who gives any of these has chosen how to train; weights alone are no such choice
TRAINING = {name for name, one in spec.OPTIONS.items() if one.group in ("Model", "Training")} - {"weights"} | {
    "selector",
    "backbone",
    "head",
}
DEFAULT_NOISE = 0.15  # where votes are there and no rate is given: the paper's lower level


def about(dataset: ImageDataset) -> dict[str, Any]:
    """What a run remembers of its data, so that it can be listed without them."""
    left_out = skipped.groups(dataset.skipped)
    return {
        "class_names": dataset.class_names,
        "n_samples": len(dataset.ids),
        "annotators": dataset.annotators,
        "annotators_source": dataset.annotators_source,
        **({} if dataset.answer == answers.ClassAnswer.kind else {"answer": dataset.answer}),
        "skipped": [[name, group.reason] for group in left_out for name in group.examples],
        SKIPPED_COUNTS: {group.reason: group.n for group in left_out},
    }


def default_method(task: str, votes: bool = False, untrained: bool = False) -> str:
    """The strategy or score that nobody chose.

    votes: whether the labels to check are a table of people's votes · untrained: whether predictions are imported.
    """
    if not spec.QUESTIONS[task].checks:
        return UNTRAINED_STRATEGY if untrained else STRATEGY
    return VOTES_SCORE if votes else "cleaning"


def _preset(task: str, dataset: str) -> dict[str, Any]:
    """What a newcomer gets: for the data set, else for its kind of labels, else for any."""
    return PRESETS.get((task, dataset)) or PRESETS.get((task, spec.answer_of(dataset))) or PRESETS[task, ""]


def defaults(task: str, dataset: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings for whatever the user leaves open; given: what is not left open.

    Who counts epochs gets no more steps; weights that were learnt elsewhere are fine-tuned gently.
    """
    given = given or {}
    found = {**_preset(task, dataset)}
    if "epochs" in given:
        found.pop("steps", None)
    if methods.models.has_weights(given.get("model", found["model"]), given.get("weights")):
        found["lr"] = FINE_TUNING
    return found


def of_few(budget: int, pool: int) -> int:
    """A default budget for so many images of the user's own: of a few, a tenth per cycle."""
    return min(budget, max(1, pool // 10))


@dataclass(frozen=True)
class Suggestion:
    """The model for some images on this machine. settings: options instead of the presets' · why: in one or two sentences."""

    settings: dict[str, Any]
    why: str


def suggest(
    task: str, dataset: str, side: int | None, weights: str | None = None, method: str = STRATEGY
) -> Suggestion:
    """Which model suits images whose longer side has so many pixels, None where that is not known yet.

    weights: a file that the user gave · method: strategy or score, where one is chosen already. A network that was trained on
    other images is suggested for photographs, which no small network learns within hours on a CPU, and where its weights are on
    this machine for the label cleaning of small images too, of which the evidence is.
    """
    checks, preset = spec.QUESTIONS[task].checks, _preset(task, dataset)
    if spec.answer_of(dataset) != answers.ClassAnswer.kind:
        return Suggestion(
            {},
            f"Masks: {preset['model']} of width {preset['width']} is trained from scratch, {preset['steps']:,} steps per cycle.",
        )
    there = methods.models.weights_there()
    small = side is None or side <= SMALL
    if not checks and method in methods.strategies.CATALOGUE and methods.strategies.CATALOGUE[method].trained:
        return Suggestion(
            {}, f"{method} needs a network that the run trains: {preset['model']} of width {preset['width']}."
        )
    at_hand = weights is not None or there is not None
    if dataset == "fashion" or (small and not (checks and at_hand)):
        trained = f"{preset['model']} of width {preset['width']} is trained from scratch"
        return Suggestion({}, f"Small images: {trained}." if side else f"By default {trained}.")
    backbone = there or next(iter(methods.models.BACKBONES))
    where = "were given" if weights is not None else "are on this machine" if there else "are downloaded at the start"
    whose = f"{backbone}, whose ImageNet weights {where}"
    if checks:
        return Suggestion(
            {"selector": "pretrained", "backbone": backbone},
            f"A linear head on the embedding of {whose}: on CIFAR-10H it went {EVIDENCE['pretrained']:.0%} of the way from "
            f"random order to oracle, plain training {EVIDENCE['vanilla']:.0%} (results/README.md).",
        )
    return Suggestion(
        {"model": f"{methods.models.TORCHVISION}{backbone}", "freeze": True},
        f"Photographs: a linear head on the embedding of {whose}. The network stays as it is and sees each image once, so that "
        "every cycle after the first takes seconds.",
    )


def why(config: Config, dataset: ImageDataset) -> str:
    """Why the model is the one that `suggest` finds for these images, in a sentence or two; "" where none is trained."""
    if config.selector == IMPORTED:
        return ""
    return suggest(config.task, config.dataset, max(dataset.images.shape[1:3]), config.weights, config.method).why


def loader() -> Callable[[Config], ImageDataset]:
    """What loads the data set of a configuration, and of equal ones no second time."""
    loaded: dict[str, ImageDataset] = {}

    def load(config: Config) -> ImageDataset:
        key = json.dumps([config.dataset, config.root, config.load_options])
        if key not in loaded:
            loaded[key] = data.load(config.dataset, config.root, **config.load_options)
        return loaded[key]

    return load


def settle(given: Mapping[str, Any], load: Callable[[Config], ImageDataset]) -> tuple[Config, ImageDataset]:
    """The configuration of what was given, defaults for the rest, ready to run; and the data set that it asks for.

    given: options, at least task, dataset and method; of the model and its training, where none is given, those that `suggest`
    finds. Where people check labels that may be wrong, every image of a folder is ranked, and by a model that has not learnt
    from its label. Raises `UserError` as `spec.check`, `prepare` and `load` do.
    """
    spec.check({"task": given["task"]})
    checks = spec.QUESTIONS[given["task"]].checks
    untrained = given.get("predictions") is not None
    if untrained and checks:
        given = {"selector": IMPORTED, **given}
    settings = {"budget": 0, **defaults(given["task"], given["dataset"], given), **given}
    if given["dataset"] == "folder":  # earlier runs decoded all images at once, and stay as they are
        settings = {"on_demand": True, **settings}
    check(settings)
    _check_predictions(settings)
    if not untrained and not set(given) & TRAINING:
        side = max(load(Config(**settings)).images.shape[1:3])
        settings |= suggest(given["task"], given["dataset"], side, given.get("weights"), given["method"]).settings
    # A model that is trained elsewhere has its own test set: every image of the folder is in the table of predictions
    everything = (checks or untrained) and given["dataset"] in spec.OWN and "test_share" not in given
    first = Config(**{**settings, "test_share": 0.0} if everything else settings)
    dataset = load(first)
    if "budget" not in given and given["dataset"] in spec.OWN:
        first = dataclasses.replace(first, budget=of_few(first.budget, len(dataset)))
    if "budget" not in given and first.budget_unit == "pixels":
        first = dataclasses.replace(first, budget=first.budget * int(np.prod(dataset.images.shape[1:3])))
    config = prepare(first, dataset)
    if untrained:
        return config, dataset
    if config.question.checks and config.annotator == "person":
        folds = first.folds if "folds" in given else min(PEOPLES_FOLDS, len(dataset))
        return prepare(dataclasses.replace(first, folds=folds), dataset), dataset
    if everything:  # the labels answer for the annotators, and a test set shows what was learnt from them
        dataset = load(Config(**settings))
        config = prepare(Config(**settings), dataset)
    return config, dataset


def check(settings: Mapping[str, Any], where: str | None = None) -> None:
    """Raise `UserError` where options of one run, its task among them, cannot be as they are, whatever the data.

    where: the file they were written in, "" where the sentence says so already, None where they are named as on the command line.
    """
    task = settings["task"]

    def spell(name: str) -> str:
        return spec.flag(name, task) if where is None else spec.OPTIONS[name].named(task)

    spec.check(settings, spell, where=where or "", task=task)
    before = f"{where}: " if where else ""
    for name, one in spec.OPTIONS.items():
        if one.only not in (None, task) and settings.get(name, one.default) != one.default:
            raise UserError(
                f"{before}{spell(name)} belongs to {str(one.only).replace('-', ' ')}: leave it out, or choose that task."
            )
        sets = one.option.sets if one.option.loads else ()  # another data set would not ignore it
        if sets and settings["dataset"] not in sets and settings.get(name, one.default) != one.default:
            names = " or ".join(filter(None, [", ".join(sets[:-1]), sets[-1]]))
            raise UserError(f"{before}{spell(name)} is for the data set {names}: leave it out.")
    _check_answer(settings, before, spell)
    _check_model(settings, before, spell)
    if settings.get("evidence") == "influence":
        _check_influence(settings, before, spell)
    if settings.get("warm_start") and settings.get("finetune_epochs"):
        raise UserError(
            f"{before}A warm start and {spell('finetune_epochs')} are two ways to go on from the last weights: give one of them."
        )


def not_for(dataset: str) -> frozenset[str]:
    """The options that are not for the kind of labels of a data set."""
    return frozenset(OF_MASKS if spec.answer_of(dataset) == answers.ClassAnswer.kind else NO_MASKS)


def _check_answer(settings: Mapping[str, Any], before: str, spell: Callable[[str], str]) -> None:
    """Raise `UserError` for what does not take the data set's kind of labels."""
    task, dataset = settings["task"], settings["dataset"]
    kind, checks = spec.answer_of(dataset), spec.QUESTIONS[settings["task"]].checks
    of_classes = kind == answers.ClassAnswer.kind
    model = settings.get("model", spec.OPTIONS["model"].default)
    whose = "" if of_classes else f", and the labels of {dataset} are masks"
    if methods.models.is_named(model) and not methods.models.is_known(model, kind):
        names = [*spec.models(), methods.models.OTHERS] if of_classes else [methods.models.OF_MASKS_TEXT]
        known = [name for name in names if name not in methods.models.CATALOGUE]
        raise UserError(
            f'{before}{spell("model")} is "{model}"{whose}: choose one of {", ".join([*methods.models.listed(kind), *known])}.'
        )
    ranks: Mapping[str, Method] = methods.label_scores.CATALOGUE if checks else methods.strategies.CATALOGUE
    for name, described in (("method", ranks), ("selector", methods.selectors.CATALOGUE if checks else {})):
        value = settings.get(name, spec.OPTIONS[name].default)
        if value in described and kind not in described[value].answers:
            fit = [one for one in spec.OPTIONS[name].choices(task) if kind in described[one].answers]
            what = "labels of one class each" if of_classes else "masks"
            raise UserError(
                f"{before}{spell(name)} {value} does not take {what}, as those of {dataset} are: choose one of {', '.join(fit)}."
            )
    how, kinds = settings.get("noise_kind", spec.OPTIONS["noise_kind"].default), answers.KINDS[kind].noise_kinds
    if settings.get("noise") and how not in kinds:
        raise UserError(
            f"{before}{spell('noise_kind')} {how} is for {'masks' if of_classes else 'labels of one class each'}, which those of "
            f"{dataset} are not: choose one of {', '.join(kinds)}."
        )
    if of_classes:
        for name, what in OF_MASKS.items():
            if settings.get(name, spec.OPTIONS[name].default) != spec.OPTIONS[name].default:
                raise UserError(f"{before}{spell(name)} {what} the pixels of masks: leave it out.")
        return
    for name, what in NO_MASKS.items():
        value = settings.get(name, spec.OPTIONS[name].default)
        if value != spec.OPTIONS[name].default:
            raise UserError(f"{before}{spell(name)} {what}, and the labels of {dataset} are masks: leave it out.")


def no_influence(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Why no influence can be computed under these options, whatever the data, and the option to leave out for it, if one is.

    ("", "") where it can; what is said follows the word "influence".
    """
    if spec.answer_of(settings["dataset"]) != answers.ClassAnswer.kind:
        return "is computed where the label of an image is one class, and in this data set it is a mask", ""
    if spec.QUESTIONS[settings["task"]].checks:
        return "says what newly labelled images are worth, which is a question of active learning", ""
    if settings.get("freeze"):
        why = "inverts the curvature of a network that is trained with weight decay, and a frozen one has a head with a penalty "
        return f"{why}of its own", "freeze"
    if settings.get("predictions") is not None or settings.get("imported") is not None:
        return "needs the gradients of a model that is trained here, and imported predictions replace it", "predictions"
    if settings.get("annotator") == "person":
        return "needs to know every label, which people have yet to give", ""
    return "", ""


def _check_influence(settings: Mapping[str, Any], before: str, spell: Callable[[str], str]) -> None:
    """Raise `UserError` where no influence can be computed, whatever the data."""
    why, option = no_influence(settings)
    if why:
        evidence = spell("evidence")
        leave = f"leave {spell(option)} out, or " if option else ""
        raise UserError(f"{before}{evidence} influence {why}: {leave}give {evidence} without it.")


def _check_predictions(settings: Mapping[str, Any]) -> None:
    """Raise `UserError` where imported predictions do not go with the other options of a run, or these need some."""
    task, given = settings["task"], settings.get("predictions") is not None
    if settings.get("embeddings") is not None and not given:
        raise UserError("--embeddings go with --predictions: give both, or neither.")
    name = settings.get("selector", spec.OPTIONS["selector"].default)
    trains = name not in methods.selectors.CATALOGUE or methods.selectors.CATALOGUE[name].trains
    if not given and settings.get("imported") is None:
        if not trains:
            raise UserError(f"--selector {name} takes predictions: give --predictions.")
        if settings.get("predicted") is not None:
            raise UserError("--predicted is said of --predictions: give them, or leave it out.")
        return
    if spec.QUESTIONS[task].checks and trains:
        raise UserError(f"--selector {name} trains a model, and --predictions replace it: leave one of them out.")
    for other in NEED_MODEL:
        if settings.get(other, spec.OPTIONS[other].default) != spec.OPTIONS[other].default:
            raise UserError(
                f"{spec.flag(other)} needs a model that is trained here, and --predictions replace it: leave one of them "
                "out."
            )
    method, flag = str(settings.get("method")), spec.flag("method", task)
    needs = imported.needs_of(method, task)
    if needs == "model":
        fit = [one for one in spec.OPTIONS["method"].choices(task) if imported.needs_of(one, task) != "model"]
        raise UserError(
            f"{flag} {method} asks a model for more than its predictions (gradients, dropout or a model of its own): choose one "
            f"of {', '.join(fit)}, or train here without --predictions."
        )
    if needs == "embeddings" and given and settings.get("embeddings") is None:
        raise UserError(f"{flag} {method} compares embeddings: give --embeddings too.")


def _check_model(settings: Mapping[str, Any], before: str, spell: Callable[[str], str]) -> None:
    """Raise `UserError` where model, weights, selector and strategy do not go together."""
    value = {
        name: settings.get(name, spec.OPTIONS[name].default) for name in ("model", "weights", "freeze", "selector")
    }
    model, frozen = value["model"], spell("freeze")
    checks, known = spec.QUESTIONS[settings["task"]].checks, methods.models.listed()
    strategy = None if checks else methods.strategies.CATALOGUE.get(settings.get("method", ""))
    if not methods.models.is_known(model):
        return  # a plug-in that is not installed here: a run can be read without it
    if value["weights"] is not None and not checks and model in known:
        raise UserError(
            f"{before}{spell('weights')} is for the networks of timm and torchvision, and {spell('model')} is {model}: choose "
            f"one, such as {spec.models()[len(known)]}."
        )
    if strategy is not None and strategy.companion is not None and model not in known:
        raise UserError(
            f"{before}{strategy.name} learns from the stages of {' and '.join(known)}, and {spell('model')} is {model}: choose "
            f"one of these, or another {spell('method')}."
        )
    if not value["freeze"]:
        return
    if not methods.models.has_weights(model, value["weights"]):
        raise UserError(
            f"{before}{frozen} keeps the network as it is, and {model} begins from random weights: choose "
            f"{', '.join(one for one in spec.models() if methods.models.is_elsewhere(one))} or {methods.models.OTHERS} by "
            f"{spell('model')}, with weights."
        )
    if strategy is not None and strategy.trained:
        raise UserError(
            f"{before}{strategy.name} needs a network that the run trains: leave {frozen} out, or choose another "
            f"{spell('method')}."
        )
    selector = methods.selectors.CATALOGUE.get(value["selector"])
    if checks and selector is not None and not selector.plain:
        plain = [name for name, one in methods.selectors.CATALOGUE.items() if one.plain]
        raise UserError(
            f"{before}{frozen} trains a linear head, and the selector {value['selector']} learns in its own way: leave "
            f"{frozen} out, or choose {' or '.join(plain)} by {spell('selector')}."
        )


def prepare(config: Config, dataset: ImageDataset) -> Config:
    """Check a configuration against its data and fill in what depends on both.

    What it returns may be given to it again, with other settings: what is filled in stays. Raises `UserError` for what
    cannot run: as `check`, a budget larger than the pool, noise out of reach.
    """
    check(dataclasses.asdict(config))
    _check_predictions(dataclasses.asdict(config))
    if not config.trains:
        config = dataclasses.replace(config, finetune_epochs=0, warm_start=False)
    if config.predictions is not None and config.imported is None:
        found = imported.read(config, dataset, config.predictions, config.embeddings)
        config = dataclasses.replace(config, imported=found.digest)
    if not config.question.checks:
        return _prepare_learning(config, dataset)
    return _prepare_cleaning(config, dataset, len(dataset.ids))


def _prepare_learning(config: Config, dataset: ImageDataset) -> Config:
    if config.per_group is not None and dataset.groups is None:
        raise UserError(f"--per-group limits each sequence, and {dataset.name} names none: leave it out.")
    if config.evidence == "influence" and int((dataset.test_labels >= 0).sum()) < 2:
        raise UserError(
            "--evidence influence is measured on the loss of test images, and this data set has none with a label: hold some out "
            "with --test-share, or give --evidence without it."
        )
    if config.budget < 1:
        raise UserError("--budget is 0: give the number of labels to buy between two cycles.")
    if config.annotator == "simulated":
        raise UserError(
            "--annotator simulated belongs to label cleaning: leave it out, and the reference labels answer; or take person."
        )
    images = regions.images(config.budget, config.budget_unit, dataset.images.shape)
    if config.subset is not None and config.subset < images:
        raise UserError(
            f"--subset is {config.subset}, less than the budget of {images} images that is chosen from it: rank at least "
            "as many images as are to be labelled."
        )
    known = int(dataset.labelled.sum())
    if config.annotator == "person":
        return _prepare_people(config, dataset, known)
    config = dataclasses.replace(config, initial=config.initial or images)
    strategy = methods.strategies.CATALOGUE.get(config.method)
    if strategy is not None and strategy.validation and config.initial < 2:
        raise UserError(
            f"{config.method} holds out some of the initial labels to score by, and there is one alone: give --initial, at least "
            "2 and better 20."
        )
    wanted = config.initial + images * (config.cycles - 1)
    if not known:
        raise UserError(
            "No image of the pool has a label that could answer for the annotator: choose “People give the labels”, or give "
            "--annotator person."
        )
    if wanted > known:
        raise UserError(
            f"The run asks for {wanted:,} labels ({config.initial:,} at the start and {config.cycles - 1} × {images:,}), "
            f"but the pool holds {known:,} images with a reference label: lower the budget, the "
            "initial labels or the number of cycles."
        )
    return config


def _prepare_people(config: Config, dataset: ImageDataset, known: int) -> Config:
    """Start from the labels that are there, rank once, and wait for people."""
    if config.evidence:
        raise UserError("--evidence needs to know every label, which people have yet to give: leave it out.")
    if config.initial > known:
        raise UserError(
            f"--initial is {config.initial:,}, but the pool holds {known:,} images with a label: give at most as many, or leave "
            "it out to start from all of them."
        )
    config = dataclasses.replace(config, initial=config.initial or known, cycles=1)
    if config.initial == len(dataset):
        raise UserError(
            f"All {len(dataset):,} images of the pool have a label, so that none is left to ask people about: give --initial, "
            "the number of labels to start from, or choose label cleaning to check those that are there."
        )
    return config


def _prepare_cleaning(config: Config, dataset: ImageDataset, n: int) -> Config:
    if config.temperature is not None and dataset.label_counts is None:
        raise UserError(f"{dataset.name} has no annotations to draw from at a temperature: use --noise instead.")
    if config.temperature is not None and config.noise and config.temperature != _temperature(config, dataset):
        raise UserError("--noise and --temperature are two ways to say the same: give one of them.")
    if config.folds > n:
        raise UserError(f"--folds is {config.folds}, more than the {n} images: 5 is usual.")
    unlabelled = ~has_label(dataset.labels if dataset.noisy_labels is None else dataset.noisy_labels)
    if dataset.annotations is not None and config.annotator != "simulated":
        unlabelled[dataset.annotations.rows] = False
    if dataset.label_counts is None and unlabelled.any():
        raise UserError(f"{int(unlabelled.sum())} images have no label yet: label them first, or leave them out.")
    if config.annotator == "person":
        if config.noise or config.temperature is not None:
            raise UserError("Noise is injected for simulated annotators alone: leave it out where people are asked.")
    elif dataset.label_counts is not None and config.temperature is None:
        if config.noise == 0:
            config = dataclasses.replace(config, noise=DEFAULT_NOISE)
        config = dataclasses.replace(config, temperature=_temperature(config, dataset))
    elif config.annotator is None and dataset.annotations is not None and config.noise == 0:
        config = dataclasses.replace(config, annotator="person")  # they are the labels to check, not the truth
    if config.annotator == "person" and dataset.annotations is not None:
        counts = annotations.counts(dataset.annotations, n, len(dataset.class_names))
        if ((counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1).all() and counts.sum(axis=1).all():
            raise UserError(
                f"The annotations tie on all {n:,} images, so that there is no label to train on: add annotations until one "
                "class leads on some images, and start again."
            )
    reference, distribution = reference_labels(config, dataset), reference_counts(config, dataset)
    if reference is None and config.annotator == "simulated":
        raise UserError(
            "Nobody can be simulated: this data set has neither annotations nor clean labels; inject --noise into its labels, or "
            "take --annotator person."
        )
    if reference is None and config.method == "oracle":
        raise UserError("The oracle needs to know the true labels, which this data set does not: choose another score.")
    if config.selector == "clean":
        clean_labels(config, dataset)
    if reference is None:  # rank once, and wait for people
        return dataclasses.replace(config, cycles=1, budget=0, annotator="person")
    if distribution is None:
        return config if config.budget else dataclasses.replace(config, budget=_of_wrong_regions(config, dataset))
    if (distribution.sum(axis=1) == 0).any():
        raise UserError(
            f"{int((distribution.sum(axis=1) == 0).sum())} images have no annotation, so that none can be drawn for them: leave "
            "them out, or take --annotator person."
        )
    if config.budget == 0:
        # The paper's budget: three labels for each wrong one that is to be expected, so that all seeds have the same
        noise = config.noise
        if config.temperature is not None:
            noise = votes.expected_noise(distribution, config.temperature)
        elif noise == 0:  # noisy labels of the data set's own
            noise = 1 - metrics.correctness(initial_labels(config, dataset), distribution)
        total = max(1, round(3 * noise * n))
        config = dataclasses.replace(config, budget=-(-total // max(1, config.cycles - 1)))
    return config


def _of_wrong_regions(config: Config, dataset: ImageDataset) -> int:
    """A cycle's budget of which all cycles together pay for the regions that hold a wrong pixel: the oracle's, to the end."""
    found = regions.tally(initial_labels(config, dataset), reference_labels(config, dataset))
    wrong = found.wrong > 0
    total = int(wrong.sum() if config.budget_unit == "labels" else found.pixels[wrong].sum())
    return max(1, -(-total // max(1, config.cycles - 1)))


def _temperature(config: Config, dataset: ImageDataset) -> float:
    """That at which labels drawn from the votes have the noise rate: the data set's own figure, or found by search."""
    assert dataset.label_counts is not None
    nominal = dataset.noise_temperatures.get(config.noise)
    return nominal or votes.temperature_for(dataset.label_counts, config.noise)
