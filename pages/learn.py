"""Learn: both papers in seven steps, each formula next to the picture that it explains, on the example runs."""

from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.analysis import bounds, figures, measures, tour
from core.plots import learn
from core.runs import run as runs
from core.runs import spec
from core.runs.run import Run
from data import ImageDataset
from data.files import preview
from pages.ui import frame, widgets

GAMMAS = {0.0: "γ = 0, the paper", 0.3: "γ = 0.30, its code"}


@st.cache_resource(show_spinner=False)
def computed(what: str, run_id: str, *given: float) -> Any:
    """One of the things that `core.analysis.tour` computes of an example, once for all users."""
    run = runs.find(run_id)
    return getattr(tour, what)(run, frame.dataset(run.config), *given)


def picture(column: DeltaGenerator, dataset: ImageDataset, sample: pd.Series, title: str, lines: list[str]) -> None:
    """An image with a heading and some lines below."""
    with column.container(border=True):
        st.markdown(f"**{title}**")
        st.image(preview.png(dataset.images[int(sample.name)], 112), width=112)
        st.caption("  \n".join(lines))


def norm(run: Run, dataset: ImageDataset) -> None:
    st.markdown(
        "Train a model on the few labels that are there. An image is worth a label in proportion to how much it would "
        "**change the model**: to the norm of the gradient that its loss would cause. The label is not known yet, so the "
        "loss is the entropy of what the model says about it."
    )
    st.latex(r"\mathrm{score}(x) = \lVert \nabla_\theta\, H(p(x)) \rVert")
    st.latex(r"H(p) = -\sum_y p_y \ln p_y")
    found = tour.at_logits(len(dataset.class_names))
    st.markdown("On its way to the weights the gradient passes the logits:")
    st.latex(r"\frac{\partial H}{\partial z_y} = -\,p_y\,(\ln p_y + H)")
    st.markdown(
        "There it vanishes where the model is sure **and where it is quite unsure**: for uniform probabilities, and for an exact "
        f"tie of two classes. With {len(dataset.class_names)} classes, all but one equally likely, it is largest at "
        f"$p_\\text{{max}} = {found.peak:.2f}$, while the entropy is largest where all are alike. So the score passes over the "
        "images that the model knows least about; compare it with plain entropy."
    )
    left, right = st.columns(2, gap="large")
    with left:
        widgets.figure(found.surface, "learn-surface")
    with right:
        widgets.figure(found.profile, "learn-profile")
    rows: pd.DataFrame = computed("three", run.id, 0)
    for column, title, (_, one) in zip(st.columns(3), ("Lowest", "Middle", "Highest"), rows.iterrows(), strict=True):
        picture(
            column,
            dataset,
            one,
            f"{title} score: {one['entropy-gradnorm']:.1f}",
            [
                f"model: {frame.plain(one['suggested'])} {one['confidence']:.0%}",
                f"H = {one['entropy']:.3f} nats",
                f"‖∂H/∂z‖ = {one['at_logits']:.3f}",
                f"EGL by the logits = {one['length']:.3f}",
            ],
        )
    st.caption(f"Of {len(dataset):,} images, after {run.config.initial} labels (cycle 0).")
    st.markdown(
        "The paper's other loss is the expected one, each label $y$ as likely as the model says. Written out **it is the "
        "entropy**, term by term, so that both choose the same images:"
    )
    st.latex(r"\sum_y p_y\, \mathrm{CE}(y, p) = -\sum_y p_y \ln p_y = H(p)")
    st.markdown(
        "The older **expected gradient length** (Settles & Craven 2008) takes the norm first and the mean after it; by the "
        "logits the gradient of CE is $p - e_y$, the last line below each image:"
    )
    st.latex(r"\mathrm{EGL}(x) = \sum_y p_y\, \lVert \nabla_\theta\, \mathrm{CE}(y, p(x)) \rVert")


def influence(run: Run, dataset: ImageDataset) -> None:
    found: tour.Derivation | None = computed("derivation", run.id, 0)
    if found is None:
        return bound(run, dataset)
    names = list(bounds.TERMS)
    n, k = int(found.measured["candidates"]), int(found.measured["k"])
    eq_2, eq_3, eq_4, eq_5 = (
        {"This image": nats(found.values[one]), f"Median of {n:,}": nats(found.medians[one])} for one in names
    )
    harms = found.values["target"] < 0
    left, right = st.columns([3, 1], gap="large")
    left.markdown(
        "Why should the norm of a gradient say what a label is worth? The paper derives it from the **influence** of an image "
        "$x$: what the loss on test images would be, had the model not been trained on $x$. From Eq. 3 on each step gives "
        "something up, until the score is left.\n\n"
        f"The numbers are of this run: of all **{n:,} candidates** of cycle 0 with their true labels, after the {k} chosen ones "
        f"were learnt; and of **one of these {k}**, the one that {'harms most' if harms else 'helps least'} by Eq. 2."
    )
    one = found.image
    picture(
        right,
        dataset,
        one,
        f"Label: {frame.plain(one['reference'])}",
        [f"model before: {frame.plain(one['suggested'])} {one['confidence']:.0%}", f"rank {one['rank']:.0f} of {n:,}"],
    )
    term(
        "Eq. 1: the parameters move",
        "Without $x$ the training loss of $n$ labels has another minimum. To first order the parameters move there by",
        r"\frac1n\, H_\theta^{-1}\, \nabla L(x)",
        {
            "Labels n": f"{found.n_labels:,}",
            "Damping of H": f"{run.config.damping:g}",
            "CG iterations": f"{found.measured['iterations']:.0f}",
        },
        "A network's Hessian is singular. Here H is the Gauss–Newton matrix with damping and weight decay added to its diagonal, "
        f"and conjugate gradients (CG) solve for it to a relative residual of {found.measured['residual']:.2g}.",
    )
    term(
        "Eq. 2: the test loss moves with them",
        "With the parameters the loss on the test images $x_j$ moves: summed over half of them, it rises by",
        r"I(x) = \frac1n \sum_j \nabla L(x_j)^{\!\top} H_\theta^{-1}\, \nabla L(x)",
        {**eq_2, "Helpful": f"{found.measured['positive']:.0%}"},
        "Above 0 it helps: without $x$ the test loss would rise, and a candidate that was not learnt would lower it by as much. "
        f"Below 0 it harms. This image is number {found.places['target']:,} of {n:,}.",
    )
    term(
        "Eq. 3: the sign is lost",
        "The paper takes the norm. Of a single number this is its absolute value:",
        r"|I(x)| = \frac1n\, \Big\lVert \sum_j \nabla L(x_j)^{\!\top} H_\theta^{-1}\, \nabla L(x) \Big\rVert",
        eq_3,
        f"What harms now ranks like what helps: this image is number {found.places['approx-1']:,}. Of the {k} highest by Eq. 3, "
        f"{found.measured['eq2_eq3']:.0f} are among the {k} that help most by Eq. 2.",
    )
    term(
        "Eq. 4: the direction is lost",
        "By Cauchy and Schwarz it is at most a product of two norms, of which the second is **one number for every** $x$:",
        r"\frac1n\, \lVert \nabla L(x) \rVert \cdot \Big\lVert \sum_j H_\theta^{-1} \nabla L(x_j) \Big\rVert",
        {**eq_4, "Eq. 3 / 4, median": f"{found.measured['step_3_4']:.2g}"},
        "So the gradient's norm alone ranks. The bound is loose: at the median Eq. 3 is no more than "
        f"{found.measured['step_3_4']:.1%} of it.",
    )
    term(
        "Eq. 5: the model before stands in",
        "Before $x$ is labelled there is only the model $T^c$ that has not learnt it. Its gradient takes the place of that of "
        "$T^{c+1}$:",
        r"\frac1n\, \lVert \nabla L(T^c(x)) \rVert \cdot \Big\lVert \sum_j H_\theta^{-1} \nabla L(x_j) \Big\rVert",
        {**eq_5, "Eq. 4 / 5, median": f"{found.measured['step_4_5']:.2g}"},
        "**This is no bound**: the paper expects the norm to fall with training. It did for "
        f"{found.fell_chosen} of the {k} learnt and {found.fell:,} of all {n:,}. Of the {k} highest by Eq. 5, "
        f"**{found.measured['eq3_eq5']:.0f}** are among the {k} highest by Eq. 3 (Table 2); a random choice has "
        f"{found.measured['chance']:.1f} of them.",
    )
    known: tour.Bound = computed("bound", run.id, 0)
    term(
        "Eqs. 6 and 7: the label is not known",
        "The loss without a label takes the place of $L(x)$ with the true one: the expected loss or the entropy, which are the "
        "same. The second factor is left out. What is left is the score:",
        r"\lVert \nabla_\theta\, H(p(x)) \rVert",
        {"Rank correlation": f"{known.correlation:.2f}", "Highest by Eq. 3 too": f"{found.chosen} of {k}"},
        f"The correlation is Spearman's, with the norm for the true label. Of the {k} that this score chose, {found.chosen} are "
        f"among the {k} highest by Eq. 3; a random choice has {found.measured['chance']:.1f}.",
    )
    left, right = st.columns(2, gap="large")
    with left:
        widgets.figure(bounds.figure(run, bounds.ladder(run)), "learn-ladder")
    with right:
        widgets.figure(known.figure, "learn-norms")
    st.markdown(
        "So the derivation says **where the score comes from**, and does not promise that it finds the labels that help most. "
        f"{bounds.paper()} In this small run it is {found.measured['eq3_eq5']:.0f} of {k}, and by chance it would be "
        f"{found.measured['chance']:.1f}."
    )


def nats(value: float) -> str:
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"
    return f"{number} nats".replace("-", "−")


def term(title: str, text: str, formula: str, numbers: dict[str, str], said: str) -> None:
    """A step of the derivation: its formula on the left, its numbers on the right."""
    with st.container(border=True):
        left, right = st.columns(2, gap="large")
        left.markdown(f"**{title}**  \n{text}")
        left.latex(formula)
        with right.container(horizontal=True):
            for name, value in numbers.items():
                st.metric(name, value, width="content")
        right.caption(said)


def bound(run: Run, dataset: ImageDataset) -> None:
    """The step where a run has no influence measured: the bound alone."""
    found: tour.Bound = computed("bound", run.id, 0)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(
            "What would an image x do to the loss on the test images x_j? Without it in the training set, that loss moves by"
        )
        st.latex(r"\frac1n \sum_j \nabla L(x_j)^{\!\top} H_\theta^{-1}\, \nabla L(x)")
        st.markdown("and whatever the test images are, by no more than")
        st.latex(r"\frac1n\, \lVert \nabla L(x) \rVert \cdot \Big\lVert \sum_j H_\theta^{-1} \nabla L(x_j) \Big\rVert")
        st.markdown(
            "The second factor is the same for every x. So a **large gradient is what a large influence needs**; it is a bound, "
            "and no promise. The true label in L is not known when we choose, and the entropy stands in for it: the picture "
            "shows how well."
        )
        a, b = st.columns(2)
        a.metric("Rank correlation", f"{found.correlation:.2f}", border=True, help="Spearman's, of both norms.")
        b.metric(
            f"Found of {found.chosen}",
            str(found.shared),
            border=True,
            help=f"Of the {found.chosen} of highest norm with the true label; a random choice has {found.chance:.1f} of them.",
        )
    with right:
        widgets.figure(found.figure, "learn-norms")


def curve(run: Run, dataset: ImageDataset) -> None:
    other = next((one for one in runs.examples() if one.config.method == "random"), None)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(
            "Label the images of highest score, train again, score again: a **cycle**. Is it worth it? The same model, start and "
            "budget with a **random** choice is the measure."
        )
        st.latex(r"\text{train} \to \text{score} \to \text{label the } K \text{ highest} \to \dots")
        if other is not None:
            labels, points = tour.advantage(run, other)
            st.metric(
                f"After {labels:,} labels, against random",
                f"{points:+.1f} points",
                border=True,
                help="Test accuracy of one run of each: one seed decides nothing.",
            )
        st.markdown(
            "One run of each shows no more than how to look. With few labels gains are small and uncertain; the paper reports "
            "its own at 10 to 40 % of 50,000 labels. The page Compare repeats runs over seeds and gives a verdict with its "
            "interval."
        )
    with right:
        drawn = figures.figure(run, dataset, "curves", len(run.cycles()) - 1, [other] if other is not None else [])
        widgets.figure(drawn, "learn-curve")


def plane(run: Run, dataset: ImageDataset) -> None:
    st.markdown(
        "Now every image has a label, and some are wrong. Two numbers tell **wrong labels** from **hard images**: how much the "
        "model disagrees with the label (noisiness), and how unsure it is at all (ambiguity)."
    )
    st.latex(
        r"\Phi(x, \hat l) = \underbrace{\mathrm{CE}(\hat l, p)}_{\text{noisiness}} - \underbrace{H(p)}_{\text{ambiguity}}"
    )
    rows: pd.DataFrame = computed("cases", run.id, 0)
    for column, (name, text), (_, one) in zip(st.columns(3), tour.CASES.items(), rows.iterrows(), strict=True):
        picture(
            column,
            dataset,
            one,
            f"{name.capitalize()}: Φ = {round(one['cleaning'], 2) + 0.0:.2f}",  # no −0
            [
                f"label {frame.plain(one['given'])}, model {frame.plain(one['suggested'])} {one['confidence']:.0%}",
                f"CE = {one['cross-entropy']:.2f}, H = {one['entropy']:.2f}",
                text,
            ],
        )
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(
            "The authors' code lets some ambiguity pass: with $C$ classes it counts only beyond a share $\\gamma$ of the most "
            "that there can be, $\\ln C$. With $\\gamma = 0$ this is the formula above."
        )
        st.latex(r"\Phi_\gamma = \mathrm{CE} - \max(H - \gamma \ln C,\, 0)")
        gamma = st.segmented_control(
            "γ", list(GAMMAS), format_func=lambda one: GAMMAS[one], default=0.0, required=True, key="learn-gamma"
        )
        found: tour.Plane = computed("plane", run.id, 0, gamma)
        same = f"; **{found.shared}** of them lie above that of γ = 0 too" if gamma else ""
        st.markdown(
            f"Above the dashed line lie the **{found.chosen}** images of highest Φ, which are asked about first{same}."
        )
    with right:
        widgets.figure(found.figure, "learn-map")


def majority(run: Run, dataset: ImageDataset) -> None:
    found: tour.Relabel = computed("relabel", run.id)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(
            "**Algorithm 1.** Take the image of highest Φ and ask annotators for labels until one class has more than any other, "
            "the label that it came with included. Then go on with the next."
        )
        st.latex(
            r"\begin{gathered} \hat l \leftarrow \hat l + e_y, \; y \sim \text{annotators} \\ \text{until} \quad "
            r"\hat l_{(1)} > \hat l_{(2)} \end{gathered}"
        )
        st.image(preview.png(dataset.images[found.row], 140), width=140)
        lines = [f"0. It came as **{frame.plain(found.given)}**; Φ = {found.score:.2f}: asked."]
        for step, vote in enumerate(found.votes, start=1):
            end = " — a majority." if found.agreed[step] else " — none has more yet."
            lines.append(f"{step}. An annotator says **{frame.plain(vote)}**{end}")
        st.markdown("\n".join(lines))
        who = "The annotators are simulated. " if dataset.annotators == "simulated" else ""
        st.caption(f"{who}{len(found.votes)} labels bought; the label is now {frame.plain(found.after)}.")
    with right:
        note = measures.note(run, f"labels of {dataset.ids[found.row]}")
        widgets.figure(learn.vote_steps(found.steps, found.given, note), "learn-votes")


def area(run: Run, dataset: ImageDataset) -> None:
    found: dict[str, float] = computed("areas", run.id)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(
            "What did the labels buy? The share $c_b$ of correct labels after $b$ of them is known here, for the annotators are "
            "simulated: a curve, and the area under it. "
            "Two **envelopes** say what was possible: an **oracle** that knows every image's true label distribution, and a "
            "**random** order."
        )
        st.latex(r"\mathrm{AUC} = \frac{1}{B+1} \sum_{b=0}^{B} c_b")
        st.latex(
            r"\frac{\mathrm{AUC} - \mathrm{AUC}_\text{random}}{\mathrm{AUC}_\text{oracle} - \mathrm{AUC}_\text{random}}"
        )
        st.latex(
            rf"\frac{{{found['run']:.3f} - {found['random']:.3f}}}{{{found['oracle']:.3f} - {found['random']:.3f}}}"
            rf" = {found['normalised']:.2f}"
        )
        st.markdown("0 is the random order, 1 the oracle: this is how far the ranking came.")
    with right:
        widgets.figure(figures.figure(run, dataset, "curves", len(run.cycles()) - 1), "learn-areas")


def onward(run: Run, dataset: ImageDataset) -> None:
    st.markdown(
        "It is one loop with two questions: **train, score, choose, ask, record, again.** Every label stays in a log that is "
        "only ever appended, so each cycle can be looked at again."
    )
    st.page_link(
        "pages/rankings.py", label="Rankings: every score of a cycle, sorted and filtered", query_params={"run": run.id}
    )
    st.page_link(
        "pages/gallery.py", label="Gallery: the images, from clear noise to ambiguous", query_params={"run": run.id}
    )
    st.page_link(
        "pages/cycles.py", label="Cycles: what each cycle did; run the example yourself", query_params={"run": run.id}
    )
    st.page_link("pages/compare.py", label="Compare: strategies over seeds, compared with the papers' figures")
    st.page_link("pages/new.py", label="Start on your own images")
    st.caption(
        "Wang et al., Boosting active learning via improving test performance, AAAI 2022 · Bernhardt et al., Active label "
        "cleaning for improved dataset quality under resource constraints, Nature Communications 2022."
    )


STEPS = (
    ("What would a label change?", spec.LEARNING, norm),
    ("Why the gradient's norm", spec.LEARNING, influence),
    ("A cycle, and what it brings", spec.LEARNING, curve),
    ("Wrong label or hard image?", spec.CLEANING, plane),
    ("Ask until a majority forms", spec.CLEANING, majority),
    ("What a budget buys", spec.CLEANING, area),
    ("Now you", spec.CLEANING, onward),
)


def step() -> int:
    """Where the tour stands, from 0; the URL counts from 1."""
    given = st.query_params.get("step", "1")
    return min(max(int(given), 1), len(STEPS)) - 1 if given.isdecimal() and len(given) < 9 else 0


def move(at: int) -> None:
    """Back and next."""

    def go(to: int) -> None:
        st.query_params["step"] = str(to + 1)

    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("◀ Back", key="learn-back", disabled=at == 0, on_click=go, args=(at - 1,))
        st.button(
            "Next ▶", key="learn-next", type="primary", disabled=at == len(STEPS) - 1, on_click=go, args=(at + 1,)
        )
        st.caption(f"Step {at + 1} of {len(STEPS)}")


frame.setup("Learn")
frame.sidebar()
st.title("Learn")
examples = {run.config.task: run for run in reversed(runs.examples())}
if len(examples) < 2:
    st.info("The example runs that this tour explains are not here: `make example` makes them, in a few minutes.")
else:
    with frame.errors():
        at = step()
        title, task, show = STEPS[at]
        st.header(title, anchor=False)
        show(examples[task], frame.dataset(examples[task].config))
        move(at)
