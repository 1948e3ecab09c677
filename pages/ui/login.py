"""Who may see the dashboard: whoever is at this machine, or whoever can log in."""

import ipaddress
import math
import os
import time

import streamlit as st
from streamlit.errors import StreamlitAuthError

from core import password
from data.errors import UserError
from pages.ui import gate

FREE = 3  # wrong passwords from one address before it has to wait
LONGEST = 300  # seconds


def require() -> None:
    """Stop the page where a login is needed and not there. The first thing that every page does.

    Whoever gets past it may upload files, and nobody else (`pages.ui.gate`).
    """
    try:
        _check()
    except BaseException:  # Streamlit stops a script by one that is no `Exception`
        gate.dismiss()
        raise
    gate.admit()


def name() -> str | None:
    """Who has logged in, by name or address; None where the login knows none."""
    found = (st.user.get("name") or st.user.get("email")) if _provider() else None
    return found if isinstance(found, str) else None


def _check() -> None:
    """Stop the page where a login is needed and not there."""
    needed = _provider() or password.VARIABLE in os.environ
    if needed and not gate.installed():
        st.title("NextLabel")
        st.error(
            "This server would take files from visitors who have not logged in, so it shows nothing: start it with `make app`, "
            "or `streamlit run app.py`."
        )
        st.stop()
    if _provider():
        if not st.user.get("is_logged_in", False):
            st.title("NextLabel")
            if st.button("Log in", type="primary"):
                try:
                    st.login()
                except StreamlitAuthError as error:  # Authlib or a setting is missing
                    st.error(f"The login is not set up, so nobody gets in: {error}")
            st.stop()
    elif password.VARIABLE in os.environ:
        if not st.session_state.get("signed-in"):
            _ask()
            st.stop()
    elif not _loopback(st.get_option("server.address")):
        st.title("NextLabel")
        st.error(
            "This dashboard listens to other machines and has no login, so it shows nothing. Set a password "
            f"(`python -m core password` makes the text for the environment variable `{password.VARIABLE}`), or configure "
            "Streamlit's login in `.streamlit/secrets.toml`, or let it listen here alone (`make app`); then restart it."
        )
        st.stop()


def sign_out() -> None:
    """A button for whoever had to log in."""
    if _provider():
        st.button("Sign out", on_click=st.logout, key="sign-out")
    elif password.VARIABLE in os.environ:
        st.button("Sign out", on_click=st.session_state.clear, key="sign-out")


def _provider() -> bool:
    """Whether an OpenID Connect provider is configured."""
    try:
        return "auth" in st.secrets
    except FileNotFoundError:  # no secrets at all
        return False


def _loopback(address: str | None) -> bool:
    """Whether only this machine can reach a server that listens there; None is everywhere."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


@st.cache_resource
def _failures() -> dict[str, tuple[int, float]]:
    """Wrong passwords in a row and the time of the last, by the visitor's address; one for all sessions."""
    return {}


def _ask() -> None:
    st.title("NextLabel")
    failures, who = _failures(), st.context.ip_address or "here"
    with st.form("login"):
        given = st.text_input("Password", type="password")
        sent = st.form_submit_button("Log in", type="primary")
    if not sent:
        return
    wrong, last = failures.get(who, (0, 0.0))
    wait = min(LONGEST, 2**wrong) - (time.monotonic() - last) if wrong >= FREE else 0
    if wait > 0:
        st.error(f"Too many wrong passwords: try again in {math.ceil(wait)} s.")
        return
    failures[who] = wrong + 1, time.monotonic()  # before the check: tries at one time count too
    try:
        right = password.matches(given, os.environ[password.VARIABLE])
    except UserError as error:
        st.error(str(error).replace("$", "\\$"))
        return
    if not right:
        st.error("This is not the password.")
        return
    failures.pop(who, None)
    st.session_state["signed-in"] = True
    st.rerun()
