"""Figures and tables as files: PNG, SVG, PDF and interactive HTML; CSV and Parquet."""

import asyncio
import atexit
import base64
import io
import json
import logging
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from core.files.printed import Layout, printed
from data.errors import UserError
from data.files.cache import write_atomically

FIGURE_FORMATS = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf", "html": "text/html"}
TABLE_FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
SIZE = {"width": 900, "height": 540, "scale": 2}  # pixels; scale 2 is 300 dpi at 6 inches
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the start of what a spreadsheet computes, or of that already quoted

START_SECONDS, DRAW_SECONDS = 60, 120  # that Chrome has to start, and for one figure or page
logging.getLogger("choreographer").setLevel(logging.CRITICAL)  # it logs a traceback of its own browser's farewell


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


def table_bytes(table: pd.DataFrame, file_format: str) -> bytes:
    """A DataFrame as a file. Raises `UserError` for an unknown format.

    A text that a spreadsheet would compute, such as the sample id `=1+1`, has a ' before it in CSV, which `unguarded` takes
    off again; numbers are left alone.
    """
    if file_format == "csv":
        texts = table.select_dtypes(["object", "string"])
        return table.assign(**{name: texts[name].map(guarded) for name in texts}).to_csv(index=False).encode()
    if file_format == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise UserError(f'"{file_format}" is no table format: choose one of {", ".join(TABLE_FORMATS)}.')


def guarded(cell: Any) -> Any:
    """A text that a spreadsheet would compute with a ' before it; anything else as it is."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The text that `table_bytes` wrote as this cell of a CSV file."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def write_file(path: Path, content: bytes) -> None:
    """Put an exported file at `path`, whose folder is there, whole or not at all. Raises `UserError` where it cannot."""
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent}: make it, or name a file in another one.")
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}): name a file in a writable folder.") from error


def write_folder(
    folder: Path,
    tables: dict[str, pd.DataFrame],
    figures: dict[str, Any],
    about: dict[str, Any],
    layout: Layout | None = None,
) -> list[Path]:
    """Tables as CSV, figures as PNG (interactive HTML where no Chrome draws them) and `about.json` in a folder.

    layout: of the figures, as in `figure_bytes`. Returns the files. Raises `UserError` where they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {folder} ({error.strerror}): name another one.") from error
    ending = "png" if has_browser() else "html"
    contents = {f"{name}.csv": table_bytes(table, "csv") for name, table in tables.items()}
    contents |= {f"{name}.{ending}": figure_bytes(figure, ending, layout) for name, figure in figures.items()}
    contents["about.json"] = json.dumps(about, indent=1, ensure_ascii=False).encode()
    for name, content in contents.items():
        write_file(folder / name, content)
    return [folder / name for name in contents]
