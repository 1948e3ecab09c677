"""Fetch one file of a public data set: within a time limit, checked, and put in place whole or not at all."""

import hashlib
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

from data.errors import UserError
from data.files.cache import write_atomically

SILENCE = 10.0  # seconds without an answer
TOTAL = 900.0  # seconds for the whole file


def fetch(url: str, target: Path, algorithm: str, digest: str, otherwise: str) -> None:
    """Download `url` to `target`, which appears only when its hash is `digest`.

    Raises UserError, ending in `otherwise` (what the user can do instead), when there is no network, no room, no answer
    within SILENCE, no end within TOTAL, or another file than expected.
    """

    def save(path: Path) -> None:
        deadline, got = time.monotonic() + TOTAL, hashlib.new(algorithm, usedforsecurity=False)
        with urllib.request.urlopen(url, timeout=SILENCE) as answer, path.open("wb") as file:
            while chunk := answer.read1(1 << 20):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not finished after {TOTAL:g} s")
                got.update(chunk)
                file.write(chunk)
        if got.hexdigest() != digest:
            raise OSError("what arrived is not the published file")

    try:
        write_atomically(target, save)
    except (OSError, HTTPException) as error:
        raise UserError(f"{target.name} could not be downloaded from {url} ({error}); {otherwise}") from error
