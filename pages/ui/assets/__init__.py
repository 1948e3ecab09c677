"""The style sheets, scripts and HTML of the pages and their components: one file each, named after its component or module."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

FOLDER = Path(__file__).parent


@functools.cache
def read(name: str) -> str:
    """The text of a file of this folder, such as "desk.css"."""
    return (FOLDER / name).read_text(encoding="utf-8")


def style(name: str) -> None:
    """Give the page the style sheet `name`.css; it takes no room."""
    st.html(f"<style>{read(f'{name}.css')}</style>")


def component(name: str) -> Callable[..., Any]:
    """The component of `name`.html, `name`.css and `name`.js, ready to be mounted with a key and its data."""
    return st.components.v2.component(
        f"nextlabel.{name}", html=read(f"{name}.html"), css=read(f"{name}.css"), js=read(f"{name}.js")
    )
