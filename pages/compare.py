"""Compare: strategies side by side over seeds, and what the paper reports."""

from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

import data
from core import methods
from core.analysis import comparison, figures, peers, policies
from core.runs import jobs, spec, study
from core.runs import run as runs
from core.runs.run import Run
from core.runs.study import Study
from pages.ui import frame, widgets

LIKE = "run"  # in the address, instead of a study: the runs like the one selected in the sidebar
PICTURES = (("accuracy", "verdicts"), ("high-gradient", "gap"))
MEANS = {"accuracy": 1, "high-gradient": 1, "gap": 2, "fell": 1, "influence": 1}  # decimals
POINTS = "%+.2f"
PAPER = "rgba(0, 114, 178, 0.16)"  # seen in light and dark


def of_learning(run: Run | None) -> Run | None:
    """The run at the left, or where it is no active learning the newest that is, an example if need be."""
    if run is not None and not run.config.question.checks:
        return run
    others = (one for one in runs.all_runs() if peers.readable(one))
    return next((one for one in others if not one.config.question.checks and len(one.cycles())), None)


def choose(run: Run | None) -> Study | str | None:
    """The study that the address names, or `LIKE`; None where there is nothing to compare. run: of active learning."""
    found, labels = {}, {}
    for one in study.all_studies():
        with frame.errors():
            labels[one.id] = f"{one.title} · {one.id}"
            found[one.id] = one
    if run is not None:
        labels[LIKE] = f"Runs like {frame.describe(run)}"
    if not labels:
        return None
    named = st.query_params.get("study", "")
    wanted = named or st.session_state.get("compared", "")  # other pages' addresses name no study
    if named and named not in labels:
        st.warning(f"The link names the study “{frame.plain(named[:100])}”, which is not here; showing another.")
    wanted = wanted if wanted in labels else next(iter(labels))
    st.session_state["study"] = wanted  # the URL is the truth, the widget shows it

    def go() -> None:
        st.query_params["study"] = st.session_state["study"]

    st.selectbox("Study", list(labels), format_func=lambda one: labels[one], key="study", on_change=go)
    st.query_params["study"] = st.session_state["compared"] = wanted
    return found.get(wanted, LIKE)


def like(run: Run) -> list[Run]:
    """The run and those that differ from it in strategy, seed and number of cycles alone."""
    near = [run, *peers.comparable(run)]
    alike = next(group for group in comparison.groups(near) if run in group)
    text = f"{len(alike)} of {len(near)} runs on these data share budget, model and training with run {frame.plain(run.id)}."
    if len(alike) < len(near):
        text += " The others have different settings and are left out: only like is compared with like."
    st.caption(text)
    return alike


def controls(one: Study, state: str, sentence: str, done: int) -> None:
    """The buttons that start and stop the work of a study, and its progress."""
    busy = state in ("running", "pausing")
    st.caption(f"{frame.STATES[state]} · {frame.plain(sentence)}")
    if busy:
        watch(one.id, state, done)
    elif state == "failed":
        st.error("Some runs failed; their message is above. Resume tries them again.")
    if state == "finished":
        return
    with st.container(horizontal=True):
        if st.button(
            "▶ Resume", type="primary", disabled=busy, key="study-on", help="Work until all of its runs are finished."
        ):
            jobs.start_study(one)
            st.rerun()
        if st.button(
            "Pause",
            disabled=state != "running",
            key="study-pause",
            help="Stop after the present step; nothing is lost.",
        ):
            jobs.pause_study(one)
            st.rerun()
        if st.button(
            "Cancel",
            disabled=not busy,
            key="study-cancel",
            help="Stop now. The unfinished step is lost, finished ones are kept.",
        ):
            jobs.cancel_study(one)
            st.rerun()


@st.fragment(run_every=2.0)
def watch(study_id: str, state: str, done: int) -> None:
    """Progress of the worker; redraws the page when a cycle or the work is finished."""
    with frame.errors():
        one = study.find(study_id)
        now, finished, everything = one.status()[0], *one.progress()
        if now != state or finished != done:
            st.rerun()
        text = f"{finished} of {everything} cycles" + (" · pausing after this step" if now == "pausing" else "")
        st.progress(min(1.0, finished / max(1, everything)), text=text)


@st.cache_resource(max_entries=8, show_spinner="Comparing the runs…")
def compared(
    _runs: list[Run], key: tuple[tuple[str, int], ...]
) -> tuple[dict[str, pd.DataFrame], dict[str, str], dict[str, str], dict[str, go.Figure], str]:
    """Tables, what they are called and mean, the figures that can be drawn of them, and how far the runs have come."""
    members = comparison.read(_runs)
    tables = comparison.tables(members)
    drawn = {name: comparison.figure(members, name, tables) for name in comparison.FIGURES if len(tables[name])}
    texts = comparison.texts(tables, comparison.measure(members))
    return tables, comparison.titles(members), texts, drawn, comparison.coverage(members)


def show(runs: list[Run], name: str) -> None:
    """Figures and tables of the chosen strategies."""
    names = list(dict.fromkeys(run.config.method for run in runs))
    chosen = st.multiselect(
        "Strategies",
        names,
        default=names,
        key=f"strategies-{name}",
        help="Verdicts compare with random: keep it among them.",
    )
    runs = [run for run in runs if run.config.method in chosen]
    if not runs:
        st.info("Choose a strategy to see its figures.")
        return
    tables, titles, texts, drawn, coverage = compared(runs, tuple((run.id, len(run.cycles())) for run in runs))
    st.caption(coverage)
    if tables["accuracy"].empty:
        st.info("The figures appear when the first cycle is done.")
        return
    for row in PICTURES:
        for column, picture in zip(st.columns(2), row, strict=True):
            with column:
                st.subheader(titles[picture])
                if picture in drawn:
                    widgets.figure(drawn[picture], f"{name}-{picture}")
                else:
                    st.info(comparison.missing(picture, tables))
    st.header("Tables")
    for table in tables:
        if table == "influence" and tables[table].empty:  # it is measured on demand alone
            continue
        st.subheader(titles[table] + (f" ({comparison.UNITS[table]})" if table in comparison.UNITS else ""))
        st.caption(texts[table])
        if len(tables[table]):
            content(table, tables[table])
            widgets.table_export(partial(tables.__getitem__, table), len(tables[table]), f"{name}-{table}")


@st.cache_resource(max_entries=8, show_spinner="Simulating the relabelling…")
def cleaned(
    _runs: list[Run], _dataset: data.ImageDataset, key: tuple[tuple[str, int, int], ...], band: str
) -> tuple[dict[str, pd.DataFrame], go.Figure]:
    """Tables of label cleaning, and Figure 3."""
    return policies.tables(_runs, _dataset), figures.policy_figure(_runs, _dataset, band)


def show_cleaning(runs: list[Run], name: str) -> None:
    """Figure 3 and the tables of a study of label cleaning."""
    ready = [run for run in runs if len(run.cycles())]
    arms = list(dict.fromkeys(run.config.arm for run in ready))
    if not arms:
        st.info("The figures appear when the first selector has ranked the labels.")
        return
    left, right = st.columns([3, 1])
    chosen = left.multiselect("Selectors and scores", arms, default=arms, key=f"arms-{name}")
    band = right.selectbox("Band", list(figures.BANDS), format_func=lambda one: figures.BANDS[one], key=f"band-{name}")
    ready = [run for run in ready if run.config.arm in chosen]
    if not ready:
        st.info("Choose a selector to see its figures.")
        return
    st.caption(f"{len(ready)} of {len(runs)} runs have a ranking.")
    key = tuple((run.id, len(run.cycles()), len(run.log.facts(""))) for run in ready)
    tables, drawn = cleaned(policies.comparable(ready), frame.dataset(ready[0].config), key, band)
    st.subheader(policies.TITLES["curves"])
    widgets.figure(drawn, f"{name}-policies-{band}")
    st.header("Tables")
    for table in ("statistics", "before-after", "model-selection"):
        st.subheader(policies.TITLES[table])
        st.caption(policies.DEFINITIONS[table])
        found = tables[table]
        if len(found) == 0:
            more = " --model-selection" if table == "model-selection" else ""
            st.info(f"Not measured yet: {frame.plain(f'python -m core evaluate {name}{more}')} trains the classifiers.")
            continue
        st.dataframe(found, hide_index=True, placeholder="—", height="content", column_config=COLUMNS[table])
        if table == "model-selection":
            agreed = policies.agreement(found)
            said = [f"{title} labels τ = **{agreed[key]:.2f}**" for key, title in VALIDATION.items() if key in agreed]
            st.caption("Agreement with the order on the test set: " + ", ".join(said))
        widgets.table_export(partial(tables.__getitem__, table), len(found), f"{name}-{table}")
    widgets.table_export(
        lambda: tables["curves"], len(tables["curves"]), f"{name}-curves", "Export the curves' figures"
    )


VALIDATION = {
    "validation_noisy": "noisy",
    "validation_cleaned": "cleaned",
    "validation_right": "right",
}
COLUMNS: dict[str, widgets.Columns] = {
    "statistics": widgets.POLICY_COLUMNS,
    "before-after": {
        "selector": st.column_config.TextColumn("Selector", pinned=True),
        "scoring": "Scoring",
        "classifier": "Classifier",
        "before": st.column_config.NumberColumn("Before (%)", format="%.2f"),
        "after": st.column_config.NumberColumn("After (%)", format="%.2f"),
        "gain": st.column_config.NumberColumn("Gain (points)", format=POINTS),
        "before_sd": st.column_config.NumberColumn("± s.d. before", format="%.2f"),
        "after_sd": st.column_config.NumberColumn("± s.d. after", format="%.2f"),
        "n_seeds": "Seeds",
        "paper_before": st.column_config.NumberColumn("Paper before", format="%.1f"),
        "paper_after": st.column_config.NumberColumn("Paper after", format="%.1f"),
    },
    "model-selection": {
        "run": None,
        "arm": "Labels cleaned by",
        "selector": st.column_config.TextColumn("Classifier", pinned=True),
        "width": "Width",
        "epochs": "Epochs",
        "seed": "Seed",
        **{
            key: st.column_config.NumberColumn(f"Validation, {title} labels (%)", format="%.1f")
            for key, title in VALIDATION.items()
        },
        "accuracy": st.column_config.NumberColumn("Test (%)", format="%.1f"),
    },
}


def content(name: str, table: pd.DataFrame) -> None:
    """One table, for people to read; its export has every figure in a row of its own."""
    number = st.column_config.NumberColumn
    if name in MEANS:
        wide = comparison.wide(table, MEANS[name])
        st.dataframe(
            wide.style.apply(paper, axis=1),
            hide_index=True,
            placeholder="—",
            height="content",
            column_config={"Strategy": st.column_config.TextColumn(pinned=True, width=150)},
        )
    elif name == "verdicts":
        st.dataframe(
            comparison.readable(table),
            hide_index=True,
            placeholder="—",
            height="content",
            column_order=[
                *("method", "said", "difference", "low", "high", "sd", "detectable", "n_seeds", "cycles", "left_out"),
            ],
            column_config={
                "method": st.column_config.TextColumn("Strategy", pinned=True, width=150),
                "said": "Than random",
                "sd": number("± s.d. of the pairs", format="%.2f"),
                "detectable": number(
                    "Detectable (points)",
                    format="%.1f",
                    help="The smallest true difference that these seeds would show in four of five studies.",
                ),
                "difference": number("Difference (points)", format=POINTS),
                "low": number("95 % from", format=POINTS),
                "high": number("to", format=POINTS),
                "n_seeds": "Seeds",
                "cycles": "Cycles counted",
                "left_out": "Pairs left out",
            },
        )
    else:
        st.dataframe(comparison.wide_correlations(table), hide_index=True, placeholder="—", height="content")


def paper(row: pd.Series) -> list[str]:
    """The paper's figures on another ground than ours."""
    return [f"background-color: {PAPER}" if row["Figures"] == "paper" else ""] * len(row)


def title(method: str) -> str:
    """What a strategy is called."""
    return methods.described(method).title if method in methods.scores() else method


def start_form(first: bool) -> None:
    """Choose a protocol, strategies and seeds, and start a study."""
    protocols = study.protocols()
    name = st.selectbox(
        "Protocol",
        list(protocols),
        index=list(protocols).index("fashion"),  # its data are embedded
        format_func=lambda one: f"{one} — {protocols[one]}",
        key="protocol",
    )
    protocol = study.read(name)
    learning = not spec.QUESTIONS[protocol.run["task"]].checks
    arms = protocol.names
    strategies = st.multiselect(
        "Strategies to compare" if learning else "Selectors and scores to compare",
        list(methods.strategies.CATALOGUE) if learning else arms,
        default=arms,
        format_func=title,
        key=f"chosen-{name}",
        help="Keep random: it is what the others are measured against." if learning else None,
    )
    seeds = st.number_input(
        "Number of seeds",
        1,
        50,
        len(protocol.seeds),
        key=f"seeds-{name}",
        help="Each strategy runs once per seed. A verdict needs two seeds, a firm one five or more.",
    )
    st.caption(f"{len(strategies) * int(seeds)} runs, one after another. Watch each of them on Cycles.")
    if st.button("Start study", type="primary" if first else "secondary", key="start-study", disabled=not strategies):
        with frame.errors():
            made = study.create(name, arms=strategies, seeds=list(range(int(seeds))))
            jobs.start_study(made)
            st.query_params["study"] = made.id
            st.rerun()


frame.setup("Compare")
run, _ = frame.sidebar()
st.title("Compare")
st.markdown(
    "Does choosing by gradient norm beat a random choice? Which selector finds the most wrong labels? A **study** runs several "
    "of them on the same data and the same first labels, and measures what Wang et al. 2022 and Bernhardt et al. 2022 report."
)
with frame.errors():
    run = of_learning(run)
    picked = choose(run)
    if picked is None:
        st.info(
            "There is nothing to compare yet. Start a study here, or on the command line: "
            "`python -m core run --protocol fashion`."
        )
        with st.container(border=True):
            st.subheader("Start a study")
            start_form(first=True)
    else:
        with st.expander("Start another study" if picked != LIKE else "Start a study"):
            start_form(first=False)
        if isinstance(picked, Study):
            state, sentence = picked.status()
            controls(picked, state, sentence, picked.progress()[0])
            members = picked.runs
            cleaning = bool(members) and members[0].config.question.checks
            (show_cleaning if cleaning else show)(members, picked.id)
        elif run is not None:
            show(like(run), f"{run.id}-like")
