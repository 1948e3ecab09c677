"""What stands before the server: an upload is taken only from a visitor whom `login.require` has let in.

Streamlit takes files for every session, and a session is there before anybody has logged in: without this, a stranger could
fill the server's memory. It is a plain ASGI middleware, given to `st.App` by app.py.
"""

from typing import Any

from streamlit.runtime.scriptrunner import get_script_run_ctx

UPLOADS = "/_stcore/upload_file/"  # then SESSION/FILE
REFUSED = b"Log in first: this server takes no file from a visitor who has not."

_installed = False
_admitted: set[str] = set()  # ids of sessions; the scripts of all of them run in the server's process


class Gate:
    """Answers 403 to the upload of a session that was not admitted, and reads nothing of it."""

    def __init__(self, app: Any) -> None:
        global _installed
        self.app, _installed = app, True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or UPLOADS not in scope["path"] or scope["method"] == "OPTIONS":
            return await self.app(scope, receive, send)
        session = scope["path"].split("/")[-2]
        if session in _admitted:
            return await self.app(scope, receive, send)
        headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": REFUSED})


def installed() -> bool:
    """Whether the server was started with the gate before it."""
    return _installed


def admit() -> None:
    """Take uploads from the session whose page is being drawn."""
    if (session := _session()) is not None:
        _admitted.add(session)


def dismiss() -> None:
    """Take no more uploads from the session whose page is being drawn."""
    _admitted.discard(_session() or "")


def _session() -> str | None:
    context = get_script_run_ctx()
    return None if context is None else context.session_id
