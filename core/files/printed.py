"""Figures and pages as Chrome or Chromium draws them: PNG, SVG and PDF; and interactive HTML, which needs no browser.

On the screen a figure has room and hovering explains it; in a journal's column of 89 mm its legend, titles and small print are
set again, so that nothing overlaps.
"""

import asyncio
import atexit
import base64
import io
import logging
import os
import re
import signal
import tempfile
import textwrap
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from unicodedata import combining

import plotly.graph_objects as go
from PIL import Image

from data.errors import UserError

FIGURE_FORMATS = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf", "html": "text/html"}
SIZE = {"width": 900, "height": 540, "scale": 2}  # pixels; scale 2 is 300 dpi at 6 inches
COLUMNS = {"single": 89.0, "double": 183.0}  # mm: a column, and the page
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"  # what journals ask for
SCREEN_FONT = 13  # pixels, of `core.plots.maps`
WIDTHS = {  # of characters, in heights, at most: those of DejaVu Sans, the widest of the fonts that a browser falls back to
    0.36: " ',.:;/\\|ijlIJf-·",
    0.47: '()[]tr!"',
    0.54: "*_`sz?–‖∂",
    0.65: "cLFkvxyPTYaoeESbdghnpqu$0123456789{}θΣ∇éß",
    0.71: "KAVBRXZC",
    0.85: "UHNDGOQw&#+<=>^~→±≥Φ",
}
WIDEST = 1.0  # of all others: m, M, W, %, and most of what is not Latin
LEAST_NUMBER = 4.5  # points of a number in a cell
LINE = 1.35  # distance of lines, in heights
SMALL = 0.85  # size of legend and small print compared with the other text
LEGEND_ROW = 19  # pixels, the least that plotly gives one
SYMBOL = 46  # pixels that a legend takes before its text
RANGES = {"width_mm": (30.0, 400.0, "mm"), "font_size": (4.0, 24.0, "points"), "dpi": (72.0, 1200.0, "dots per inch")}
START_SECONDS, DRAW_SECONDS = 60, 120  # that Chrome has to start, and for one figure or page
logging.getLogger("choreographer").setLevel(logging.CRITICAL)  # it logs a traceback of its own browser's farewell


@dataclass(frozen=True)
class Layout:
    """width_mm: of the whole figure · font_size: of its text, in points at that width · dpi: of PNG, dots per inch.

    Raises `UserError` for what no journal prints.
    """

    width_mm: float = COLUMNS["single"]
    font_size: float = 8.0
    dpi: int = 300

    def __post_init__(self) -> None:
        for name, (least, most, unit) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                what = name.removesuffix("_mm").replace("_", " ")
                raise UserError(f"A {what} of {getattr(self, name):g} {unit}: give {least:g} to {most:g}.")

    @property
    def width(self) -> float:
        """Pixels, 96 to the inch, as browsers count."""
        return self.width_mm / 25.4 * 96

    @property
    def dots(self) -> int:
        """Width of a PNG, in its own pixels."""
        return round(self.width_mm / 25.4 * self.dpi)

    @property
    def font(self) -> float:
        """Pixels."""
        return self.font_size / 72 * 96


def printed(figure: go.Figure, layout: Layout) -> go.Figure:
    """A copy of a figure of `core.plots.maps` at the size of a layout, on white."""
    drawn = go.Figure(figure)
    font, width, scale = layout.font, layout.width, layout.font / SCREEN_FONT
    small = SMALL * font
    listed = drawn.layout.yaxis.autorange == "reversed"  # a row a name: its height follows from its rows
    old = drawn.layout.margin
    left = scale * old.l if listed and old.l > 100 else 5.4 * font
    names = [unescape(re.sub(r"<[^>]+>", "", name)) for name in drawn.layout.yaxis.ticktext or ()]
    if names:
        above = LINE * font if drawn.layout.yaxis.title.text else 0.0
        left = max(left, small * max(_length(name) for name in names) + font + above)
    right, plot_width = 1.6 * font, width - left - 1.6 * font

    x_title, y_title = drawn.layout.xaxis.title.text or "", drawn.layout.yaxis.title.text or ""
    x_lines = _wrap(x_title, (width - 2 * font) / font)
    on_top = drawn.layout.xaxis.side == "top"
    rows = _legend(drawn, small, plot_width) if drawn.layout.showlegend else 0
    top = 0.9 * font + rows * max(LEGEND_ROW, 1.5 * small)

    axis = (1.6 + LINE * len(x_lines) + 0.9) * font  # ticks, title and air
    note = str((drawn.layout.meta or {}).get("note", ""))
    lines = [line for part in note.split("\n") for line in _wrap(part, (width - font) / small)]
    below = len(lines) * LINE * small + 0.6 * font if lines else 0
    bottom = (0.9 * font if on_top else axis) + below
    if on_top:
        top += axis + 4 * font  # names of classes, slanted
    plot_height = min(0.66, max(0.45, 1.05 - width / 850)) * plot_width  # flatter, the wider
    if listed:
        plot_height = scale * (drawn.layout.height - old.t - old.b)
    cell = plot_width / max(1, len(drawn.layout.xaxis.ticktext or ()))  # of a confusion
    if on_top:
        plot_height = max(min(cell, 2.6 * font), 1.5 * small) * len(names)

    drawn.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": font},
        width=width,
        height=top + plot_height + bottom,
        margin={"l": left, "r": right, "t": top, "b": bottom, "pad": 0},
        paper_bgcolor="white",
    )
    drawn.update_xaxes(title={"text": "<br>".join(x_lines), "font": {"size": font}, "standoff": 0.4 * font})
    y_lines = _wrap(y_title, plot_height / font)
    drawn.update_yaxes(title={"text": "<br>".join(y_lines), "font": {"size": font}, "standoff": 0.3 * font})
    drawn.update_xaxes(tickfont={"size": min(small, 0.8 * cell) if on_top else font})
    drawn.update_yaxes(tickfont={"size": small if listed else font})
    drawn.for_each_trace(lambda trace: _thinner(trace, scale))
    if on_top:
        _into_cells(drawn, cell, small)
    drawn.for_each_shape(lambda shape: shape.line.update(width=0.75))
    drawn.update_annotations(font={"size": small})
    drawn.update_annotations(
        text="<br>".join(lines),
        xshift=0.4 * font - left,
        yshift=-(0.6 * font if on_top else axis),
        selector={"name": "note"},
    )
    return drawn


def _legend(drawn: go.Figure, size: float, width: float) -> int:
    """Set the legend above the figure, in columns of one width; returns how many rows it takes.

    An entry that is wider than the plot, where plotly cuts it off, takes several lines.
    """
    named = [trace for trace in drawn.data if trace.name and trace.showlegend is not False]
    longest = max((_length(unescape(str(trace.name))) for trace in named), default=0)
    columns = max(1, min(len(named), int(width // (SYMBOL + size * longest))))
    for trace in named:
        trace.name = "<br>".join(_wrap(str(trace.name), (0.98 * width - SYMBOL) / size))
    drawn.update_traces(legendgroup=None)
    drawn.update_layout(
        legend={
            "orientation": "h",
            "xref": "container",
            "yref": "container",
            "x": 0.005,
            "y": 0.995,
            "xanchor": "left",
            "yanchor": "top",
            "font": {"size": size},
            "entrywidth": 0.98 / columns,
            "entrywidthmode": "fraction",
            "tracegroupgap": 0,
        }
    )
    lines = sum(str(trace.name).count("<br>") for trace in named)
    return -(-len(named) // columns) + lines


def _into_cells(drawn: go.Figure, cell: float, most: float) -> None:
    """Make the numbers of a confusion so small that each stays in its cell; where none could be read, a scale of colours."""
    heat, numbers = drawn.data
    size = min(most, 0.92 * cell / max(_length(text) for text in numbers.text))
    numbers.textfont.size = size
    if size < LEAST_NUMBER / 72 * 96:
        numbers.mode = "markers"
        heat.colorbar = {"thickness": most, "outlinewidth": 0, "tickfont": {"size": most}, "x": 1.0, "xpad": 2}
        heat.showscale = True


def _wrap(text: str, heights: float) -> list[str]:
    """Lines of a text that is to be so many font heights wide."""
    lines = [text]
    for characters in range(max(8, int(heights / 0.3)), 7, -1):
        lines = textwrap.wrap(text, characters)
        if all(_length(unescape(line)) <= heights for line in lines):
            break
    return lines


def _length(text: str) -> float:
    """Width of a text in font heights, or a little more."""
    return sum(
        next((width for width, those in WIDTHS.items() if character in those), WIDEST)
        for character in text
        if not combining(character)
    )


def _thinner(trace: go.Figure, scale: float) -> None:
    """Lines and symbols to the measure of the text, so that none covers another."""
    if trace.type not in ("scatter", "scattergl"):
        return
    if trace.mode and "lines" in trace.mode and trace.line.width:
        trace.line.width = max(0.75, scale * trace.line.width)
    if trace.mode and "markers" in trace.mode and isinstance(trace.marker.size, int | float):
        trace.marker.size = scale * trace.marker.size * (0.75 if len(trace.x) > 200 else 1.0)
    if trace.textfont is not None and trace.mode and "text" in trace.mode:
        trace.textfont.size = SMALL * SCREEN_FONT * scale


def has_browser() -> bool:
    """Whether a Chrome or Chromium is there, which PNG, SVG and PDF need."""
    from choreographer.browsers.chromium import Chromium  # slow to import, and needed here alone

    return bool(Chromium.find_browser(skip_local=False))


def figure_bytes(figure: Any, file_format: str, layout: Layout | None = None) -> bytes:
    """A plotly figure as a file, light, at the size of a journal's column if a layout says so.

    Raises `UserError` for an unknown format, or where no browser is there to draw it.
    """
    if file_format not in FIGURE_FORMATS:
        raise UserError(f'"{file_format}" is no figure format: choose one of {", ".join(FIGURE_FORMATS)}.')
    size: dict[str, float] = dict(SIZE)
    if layout is not None:
        figure = printed(figure, layout)
        size = {"width": figure.layout.width, "height": figure.layout.height, "scale": layout.dpi / 96}
    if file_format == "html":
        return str(figure.to_html(include_plotlyjs=True, full_html=True)).encode()  # opens without a network
    if not has_browser():
        raise UserError(
            f"A {file_format.upper()} file is drawn by Chrome or Chromium, and none was found: install one (on "
            "Debian and Ubuntu: apt install chromium), or export HTML, which needs none."
        )
    if layout is not None and file_format != "png":
        size["scale"] = 1.0  # no dots: the size of the page is the size in print
    content = bytes(_asked(lambda browser: browser.calc_fig(figure, opts={"format": file_format, **size})))
    if layout is None:
        return content
    return _with_dpi(content, layout.dpi) if file_format == "png" else _in_mm(content, file_format)


def _with_dpi(content: bytes, dpi: int) -> bytes:
    """A PNG that says how large it is to be printed."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "PNG", dpi=(dpi, dpi), optimize=True)
    return buffer.getvalue()


def _in_mm(content: bytes, file_format: str) -> bytes:
    """An SVG whose size is in mm, which every program reads alike; a PDF has its size in points already."""
    if file_format != "svg":
        return content

    def in_mm(match: re.Match[bytes]) -> bytes:
        return b'%s="%.2fmm"' % (match[1], float(match[2]) / 96 * 25.4)

    head, end, rest = content.partition(b">")
    return re.sub(rb'\b(width|height)="([\d.]+)"', in_mm, head) + end + rest


def page_pdf(page: str, width_mm: float, height_mm: float) -> bytes:
    """A page of HTML as PDF, on the paper that its style names, made smaller where it does not fit on one sheet.

    width_mm, height_mm: of the paper within its margins. Raises `UserError` where no browser is there to print it.
    """
    if not has_browser():
        raise UserError(
            "A PDF file is printed by Chrome or Chromium, and none was found: install one (on Debian and Ubuntu: apt "
            "install chromium), or take HTML, which needs none."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page)
        size = round(width_mm / 25.4 * 96), int(height_mm / 25.4 * 96)
        return bytes(_asked(lambda browser: _print(browser, path.as_uri(), *size)))


async def _print(browser: Any, url: str, width: int, height: int) -> bytes:
    """width, height: of the paper within its margins, in pixels."""
    tab = await browser.create_tab("about:blank")
    try:
        await tab.send_command("Page.enable")
        loaded = tab.subscribe_once("Page.loadEventFired")
        await tab.send_command("Page.navigate", {"url": url})
        await loaded
        await tab.send_command("Emulation.setEmulatedMedia", {"media": "print"})
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await tab.send_command("Emulation.setDeviceMetricsOverride", window)
        answer = await tab.send_command("Runtime.evaluate", {"expression": "document.documentElement.scrollHeight"})
        needed = answer["result"]["result"]["value"]  # at least the window's height
        scale = 0.97 * height / needed if needed > height else 1.0  # 0.97: lines may break elsewhere
        settings = {"printBackground": True, "preferCSSPageSize": True, "scale": scale}
        answer = await tab.send_command("Page.printToPDF", settings)
        return base64.b64decode(answer["result"]["data"])
    finally:
        await tab.close()


class _Chrome:
    """A browser that draws, in an event loop of its own: 0.15 s a figure instead of 3 s for one that is started for it.

    Whatever it is asked has a time limit, since a Chrome that dies need not say so.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.browser: Any = None
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def start(self) -> None:
        """Raises `UserError` where it does not start."""
        import kaleido  # slow to import, and needed here alone

        async def opened() -> None:
            self.browser = kaleido.Kaleido(timeout=None, mathjax=False)  # without MathJax from a server elsewhere
            await self.browser.open()

        try:
            self.wait(opened(), START_SECONDS)
        except Exception as error:  # whatever stands in its way, it is not ours to mend
            why = f"it did not answer within {START_SECONDS} s" if self.alive() else "it ended at once"
            self.kill()
            raise UserError(
                f"Chrome at {_path()} did not start: {why}. Start it by hand to see what it lacks, or set BROWSER_PATH to "
                "another one, or export HTML, which needs none."
            ) from error

    def wait(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        """What a coroutine returns. Raises `TimeoutError`, also where the loop itself is stuck."""
        done = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self.loop)
        return done.result(seconds + 5)

    def alive(self) -> bool:
        """Whether its process is there."""
        process = getattr(self.browser, "subprocess", None)
        return process is not None and process.poll() is None

    def kill(self) -> None:
        """End its processes, which are a group of their own, and its loop."""
        if self.alive():
            os.killpg(self.browser.subprocess.pid, signal.SIGKILL)
        self.loop.call_soon_threadsafe(self.loop.stop)

    def close(self) -> None:
        """Let it put away what it has on disk, and end."""
        with suppress(Exception):
            self.wait(self.browser.close(), 10)
        self.kill()


_one_at_a_time = threading.Lock()
_chrome: _Chrome | None = None  # for the life of the process, or until it dies


def _asked(work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """What a coroutine of the browser returns. Raises `UserError` where that does not start or does not answer."""
    from choreographer.browsers import BrowserClosedError, BrowserFailedError
    from choreographer.channels import ChannelClosedError

    global _chrome
    with _one_at_a_time:
        if _chrome is None or not _chrome.alive():
            _chrome = None
            fresh = _Chrome()
            fresh.start()
            atexit.register(fresh.close)
            _chrome = fresh
        try:
            return _chrome.wait(work(_chrome.browser), DRAW_SECONDS)
        except (TimeoutError, BrowserClosedError, BrowserFailedError, ChannelClosedError) as error:
            _chrome.kill()
            _chrome = None
            raise UserError(
                f"Chrome at {_path()} ended or drew nothing within {DRAW_SECONDS} s: try again, or export HTML, which needs none."
            ) from error


def _path() -> str:
    from choreographer.browsers.chromium import Chromium

    return str(Chromium.find_browser(skip_local=False))
