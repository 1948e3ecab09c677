"""Which folders of the server a browser may name: $NEXTLABEL_ROOTS, else the home directory and the data sets' folder."""

import os
from pathlib import Path

from data.errors import UserError
from data.files.cache import home


def roots() -> list[Path]:
    """The folders, resolved; $NEXTLABEL_ROOTS holds several with the system's separator between them (: or ;)."""
    given = [Path(part) for part in os.environ.get("NEXTLABEL_ROOTS", "").split(os.pathsep) if part]
    return [path.expanduser().resolve() for path in (given or [Path.home(), home()])]


def inside(text: str) -> Path:
    """The path that somebody typed in a browser, resolved through all links.

    Raises `UserError` where it lies outside of `roots`, whether anything is there or not.
    """
    allowed = roots()
    try:
        path = Path(text.strip()).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a ring of links, a user that does not exist
        raise UserError(f"{text.strip()[:100]!r} is no path; give one such as {allowed[0]}/images") from error
    if not any(path.is_relative_to(root) for root in allowed):
        raise UserError(
            f"{path} lies outside of what this dashboard may read ({', '.join(map(str, allowed))}); put the images there, or "
            f"restart it with NEXTLABEL_ROOTS={path if path.is_dir() else path.parent}"
        )
    return path
