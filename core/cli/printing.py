"""Figures that commands write: the options of print, and the file."""

import argparse
from pathlib import Path

import plotly.graph_objects as go

from core.cli.options import Parser, add_choice
from core.files import export, printed
from core.files.printed import Layout


def print_options(sub: Parser) -> None:
    """How a figure is printed."""
    size = sub.add_mutually_exclusive_group()
    wide = ", ".join(f"{name} {mm:g} mm" for name, mm in printed.COLUMNS.items())
    add_choice(size, "--column", list(printed.COLUMNS), f"print a figure as wide as a journal's columns ({wide})")
    size.add_argument("--width-mm", type=float, help="print a figure of this width")
    sub.add_argument("--font-size", type=float, help="font size of a printed figure, in points (default: 8)")
    sub.add_argument("--dpi", type=int, help="resolution of a printed PNG, dots per inch (default: 300)")


def print_layout(options: argparse.Namespace) -> Layout | None:
    """How a figure is printed, if any option speaks of print."""
    given = {"font_size": options.font_size, "dpi": options.dpi}
    given["width_mm"] = options.width_mm if options.column is None else printed.COLUMNS[options.column]
    given = {name: value for name, value in given.items() if value is not None}
    return Layout(**given) if given else None


def write_figure(drawn: go.Figure, options: argparse.Namespace) -> None:
    """A figure as the file that --out names."""
    export.write_file(options.out, printed.figure_bytes(drawn, file_format(options.out), print_layout(options)))


def file_format(path: Path) -> str:
    """What the ending of a path says."""
    return path.suffix.lstrip(".").lower()
