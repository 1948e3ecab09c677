"""The frame of every page: navigation, the run and cycle we stand at (both in the URL), and errors in one sentence."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

import data
from core.analysis import budget, measures
from core.runs import annotation, jobs
from core.runs import run as runs
from core.runs.run import Run
from core.runs.spec import Config
from data.errors import UserError
from data.words import count
from pages.ui import assets, login

PAGES = {
    "app.py": "Home",
    "pages/new.py": "New run",
    "pages/cycles.py": "Cycles",
    "pages/rankings.py": "Rankings",
    "pages/curves.py": "Curves",
    "pages/compare.py": "Compare",
    "pages/diff.py": "Diff",
    "pages/gallery.py": "Gallery",
    "pages/pool.py": "Pool",
    "pages/annotate.py": "Annotate",
    "pages/learn.py": "Learn",
}
FILTERED = ("Rankings", "Gallery")  # pages that share the filters of `pages.ui.filters`
WATCHING = ("Cycles", "Annotate")  # pages that follow the worker themselves, with its progress
MOST = 1e6  # of the price of a label
PRICE = ("price", "unit")  # of a label, from the page Curves; in the URL, so that every page knows what was spent
FILTERS = ("q", "given", "suggested", "status", "kind", "outcome", "range")  # in the URL
PLAY_SECONDS = 1.5  # from cycle to cycle
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
STATES = {
    "running": "● running",
    "pausing": "◐ pausing",
    "finished": "✓ finished",
    "failed": "✕ failed",
    "stopped": "‖ stopped",
}
WAITS = "○ waits for labels"


@dataclass(frozen=True)
class Here:
    """Where the user stands."""

    run: Run
    config: Config
    dataset: data.ImageDataset
    cycle: int
    n_cycles: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Changes whenever what a page shows may have changed."""
        return self.run.id, self.cycle, self.n_cycles


def annotator() -> str | None:
    """Who labels, as the address, this session or the login says; None where none of them does."""
    return st.query_params.get("annotator") or st.session_state.get("annotator-name") or login.name()


def setup(title: str) -> None:
    """Page title and width, and who may see it; the first call of every page."""
    st.set_page_config(page_title=f"{title} · NextLabel", page_icon="🏷️", layout="wide")
    assets.style("frame")
    login.require()
    st.session_state["page"] = title


@contextmanager
def errors() -> Iterator[None]:
    """Show what the user can mend as one sentence instead of the view."""
    try:
        yield
    except UserError as error:
        st.error(plain(sentence(str(error))))


def sentence(text: str) -> str:
    """The text with a capital letter first, unless it begins with the name of something, such as probs.npy or small-cnn."""
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first.isalpha() else text


def plain(text: str) -> str:
    """Text that Markdown shows as it is: names of files, classes and runs come from users."""
    return re.sub(r"([\\`*_{}\[\]()#+!$:<>~|-])", r"\\\1", text)


def sidebar() -> tuple[Run | None, int | None]:
    """Draw the sidebar; returns the chosen run and cycle. Cycle None: no cycle of the run is finished yet."""
    readable, everything = [], []
    with errors():
        everything = runs.all_runs()
    for run in everything:
        try:
            readable.append((run, describe(run)))
        except UserError as error:
            st.sidebar.warning(plain(str(error)))
    with st.sidebar:
        st.markdown("### NextLabel")
        for path, name in PAGES.items():
            st.page_link(path, label=name, query_params=link(filtered=name in FILTERED))
        st.divider()
        if not readable:
            st.caption("No run yet. Start one on the page New run.")
            login.sign_out()
            return None, None
        ids = [run.id for run, _ in readable]
        wanted = st.query_params.get("run") or ids[0]
        if wanted not in ids:
            st.warning(f"The link names the run “{plain(wanted[:100])}”, which is not here; showing the newest.")
            wanted = ids[0]
        labels = {run.id: text for run, text in readable}
        st.session_state["run"] = wanted  # the URL is the truth, the widget shows it

        def go() -> None:
            st.query_params.from_dict({"run": st.session_state["run"]})  # a cycle belongs to the run it was chosen in

        st.selectbox("Run", ids, format_func=lambda one: labels[one], key="run", on_change=go)
        st.query_params["run"] = wanted
        run = readable[ids.index(wanted)][0]
        cycle = None
        with errors():
            cycle = _cycle_control(run, [one.config for one, _ in readable])
        login.sign_out()
        return run, cycle


def link(*, filtered: bool) -> dict[str, list[str]]:
    """What the address of another page takes over from this one's: run and cycle, and the filters."""
    kept = ("run", "cycle", *PRICE, *(FILTERS if filtered else ()))
    return {name: st.query_params.get_all(name) for name in kept if name in st.query_params}


def _cycle_control(run: Run, everything: list[Config]) -> int | None:
    """The time line: which cycle we stand at, ways to another, and what is known there. everything: of all runs."""
    state, _ = run.status()
    n = len(run.cycles())
    if run.waits_for_labels(state):  # nobody has said how many cycles it has
        st.caption(f"{WAITS} · {count(n, 'cycle')}", help=plain(run.id))
    else:
        st.caption(f"{STATES[state]} · {n} of {count(run.target(), 'cycle')}", help=plain(run.id))
    if n == 0:
        return None
    given = st.query_params.get("cycle", "")
    cycle = min(int(given), n - 1) if given.isdecimal() and len(given) < 9 else n - 1
    key = f"cycle-{run.id}"
    st.session_state[key] = cycle

    def go(to: int | None = None) -> None:
        st.query_params["cycle"] = str(st.session_state[key] if to is None else to)

    with st.container(horizontal=True, gap="xsmall"):
        st.button("Back", on_click=go, args=(cycle - 1,), disabled=cycle == 0, help="One cycle back", shortcut="Left")
        _play(run, cycle, n)
        st.button(
            "Next", on_click=go, args=(cycle + 1,), disabled=cycle == n - 1, help="One cycle on", shortcut="Right"
        )
    if n > 1:
        st.slider("Cycle", 0, n - 1, key=key, on_change=go)
        with st.container(horizontal=True, gap="small", horizontal_alignment="distribute"):
            st.button("First", on_click=go, args=(0,), disabled=cycle == 0, type="tertiary")
            st.button("Last", on_click=go, args=(n - 1,), disabled=cycle == n - 1, type="tertiary")
    else:
        st.caption("Cycle 0 is the only one so far.")
    _spent(run, cycle)
    _metric(run, cycle)
    _branches(run, cycle, everything)
    if state in ("running", "pausing"):
        if st.session_state["page"] not in WATCHING:
            _follow(run, state, n)
    elif cycle == n - 1 and not run.is_example:
        _step(run, n)
    if state not in ("running", "pausing"):  # while work goes on, a page without a cycle in its link follows the newest
        st.query_params["cycle"] = str(cycle)
    return cycle


def _metric(run: Run, cycle: int) -> None:
    """Where the cycle stands on the way: its measure, the gain over the cycle before, and the line of all cycles."""
    table, unit = run.cycles(), budget.unit(run)
    collected = count(int(table[unit.column].iloc[cycle]), unit.one)
    name, shown = next(iter(measures.measures(run.config, table.iloc[cycle]).items()), (None, None))
    if name is None or shown is None:
        st.caption(collected)
        return
    values = 100 * table[name]
    if not shown.certain:
        hint(shown, f"{shown.title} · {collected}")
        return
    st.metric(
        f"{shown.title} · {collected}",
        shown.text,
        f"{values.iloc[cycle] - values.iloc[cycle - 1]:+.1f} points" if cycle else None,
        chart_data=values.tolist() if len(values) > 1 else None,
    )


def hint(shown: measures.Measure, title: str, **layout: Any) -> None:
    """A share that is no fact: with its interval, what to know of it, and nothing that reads as better or worse."""
    if shown.interval:
        st.metric(title, shown.text, shown.interval, help=shown.note, delta_color="off", delta_arrow="off", **layout)
    else:
        st.metric(title, shown.text, help=shown.note, **layout)


def _spent(run: Run, cycle: int) -> None:
    """The budget: what was collected so far, what is left, and what the labels cost where the address names a price."""
    (so_far, whole), unit = budget.progress(run, cycle), budget.unit(run)
    text = f"**{so_far:,}** {unit.one}s {unit.done}"
    if whole:
        text = f"**{so_far:,}** of {whole:,} {unit.one}s {unit.done} · {whole - so_far:,} left"
    each, money = price()
    if each:
        labels = int(run.cycles()["n_labels"].iloc[cycle])
        text += f" · {plain(budget.money(labels * each, money))}"
    if whole:
        st.progress(min(1.0, so_far / whole), text=text)
    else:
        st.caption(text)


def price() -> tuple[float, str]:
    """What a label costs and in which unit, as the address says; 0 where it says nothing, or nothing that can be."""
    unit = st.query_params.get("unit", "")
    found = 0.0
    with suppress(ValueError):
        found = float(st.query_params.get("price", "0"))
    return (found if 0 <= found <= MOST else 0.0), (unit if unit in budget.UNITS else budget.UNITS[0])


def _branches(run: Run, cycle: int, everything: list[Config]) -> None:
    """Where the run came from another and where others leave it, and the way to one more."""
    config = run.config
    if config.branched_at is not None and cycle >= config.branched_at:
        st.caption(
            f":material/call_split: branched at cycle {config.branched_at}", help=f"From {plain(str(config.parent))}."
        )
    leave = sorted({str(one.branched_at) for one in everything if one.parent == run.id}, key=int)
    if leave:
        st.caption(f":material/call_split: branches leave at cycle {', '.join(leave)}")
    if st.session_state["page"] != "Cycles":  # where the button stands
        st.page_link(
            "pages/cycles.py", label="Branch from here", icon=":material/call_split:", query_params=link(filtered=False)
        )


def _step(run: Run, n: int) -> None:
    """Let the worker do one more cycle."""
    if st.button("Step", key="step-on", help="Collect the next labels, train and score once more: one more cycle."):
        with errors():
            annotation.check_step(run)
            jobs.start(run, until=n + 1)
            st.query_params.pop("cycle", None)  # stand at the newest
            st.rerun()


@st.fragment(run_every=1.0)
def _follow(run: Run, state: str, n: int) -> None:
    """Redraw the page when the worker has finished a cycle, or stands still."""
    if run.status()[0] != state or len(run.cycles()) != n:
        st.rerun()


def _play(run: Run, cycle: int, n: int) -> None:
    """Go through the cycles by itself, from the first where we stand at the last; a page change ends it."""
    playing = st.session_state.get("playing") == (run.id, st.session_state["page"])

    def toggle() -> None:
        if playing:
            st.session_state.pop("playing", None)  # it may have come to its end meanwhile
            return
        st.session_state["playing"] = run.id, st.session_state["page"]
        st.session_state["drawn"] = time.monotonic()
        if cycle == n - 1:
            st.query_params["cycle"] = "0"

    text = "Stop playing" if playing else "Play through the cycles"
    st.button("Pause" if playing else "Play", on_click=toggle, disabled=n < 2, help=text, shortcut="P", key="play")
    if not playing:
        return
    st.session_state["drawn"] = time.monotonic()

    @st.fragment(run_every=PLAY_SECONDS)
    def tick() -> None:
        if time.monotonic() - st.session_state["drawn"] < 0.8 * PLAY_SECONDS:
            return  # it is drawn with the page at first
        if cycle + 1 >= n - 1:
            st.session_state.pop("playing", None)
        if cycle < n - 1:
            st.query_params["cycle"] = str(cycle + 1)
        st.rerun()

    tick()


def here(title: str) -> Here | None:
    """Set up a page that shows a run: title, sidebar, heading. None, with a hint, where there is nothing to show yet."""
    setup(title)
    run, cycle = sidebar()
    st.title(title)
    if run is None:
        nothing_yet()
        return None
    mark(run)
    with errors():
        state, sentence = run.status()
        if cycle is not None:
            return Here(run, run.config_at(cycle), dataset(run.config), cycle, len(run.cycles()))
        if state == "failed":
            st.error(plain(sentence))
        else:
            st.info("The first cycle is not finished yet; the Cycles page shows how far it is.")
        st.page_link("pages/cycles.py", label="Watch it on Cycles", query_params={"run": run.id})
    return None


def mark(run: Run) -> None:
    """Say below a heading that a run is an example."""
    if run.is_example:
        st.badge("Example", help="It came with NextLabel, made by `make example`, and stays as it is.")


def nothing_yet() -> None:
    """What to do where no run is there."""
    st.info("There is no run yet. Start one on the page New run: the embedded data need no download.")
    st.page_link("pages/new.py", label="Start a run")


def describe(run: Run) -> str:
    """A run in a few words, and when it began: two runs never read the same."""
    config = run.config
    if run.is_example:
        return f"Example · {config.dataset} · {config.arm} · seed {config.seed}"
    began = re.fullmatch(r"\d{4}(0[1-9]|1[0-2])(\d\d)-(\d\d)(\d\d)(\d\d)-.*-s\d+(-\d+)?", run.id)
    if began is None:  # the user gave the folder another name
        return f"{run.id} · {config.dataset} · {config.arm} · seed {config.seed}"
    month, day, hour, minute, second, again = began.groups(default="")
    date = f"{int(day)} {MONTHS[int(month) - 1]}"
    return f"{date} {hour}:{minute}:{second}{again} · {config.dataset} · {config.arm} · seed {config.seed}"


@st.cache_resource(max_entries=4, show_spinner="Loading the images…")
def _dataset(name: str, root: str | None, options: tuple[tuple[str, Any], ...]) -> data.ImageDataset:
    return data.load(name, root, **dict(options))


def dataset(config: Config) -> data.ImageDataset:
    """The data set of a configuration, loaded once for all users. Raises `UserError` where it cannot be loaded."""
    try:
        return _dataset(config.dataset, config.root, tuple(config.load_options.items()))
    except UserError as error:
        if config.root is not None and not Path(config.root).exists():
            raise UserError(f"The images were in {config.root}, and are gone: put them back there.") from error
        raise


def posterior(config: Config) -> str:
    """Where the probabilities come from that a ranking used."""
    if not config.trains:
        said = {"out-of-sample": "out of sample", "in-sample": "in-sample (the model has learnt from these labels)"}
        return f"imported predictions, {said.get(str(config.predicted), 'not known whether out of sample')}"
    members = "" if config.ensemble == 1 else f", mean of {config.ensemble} models"
    if config.folds > 1:
        return f"predicted probabilities out of fold ({config.folds} folds{members})"
    return f"predicted probabilities in-sample (the model has learnt from these labels{members})"
