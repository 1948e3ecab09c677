"""A dashboard in a process of its own."""

import os
import socket
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from tests import forked


@dataclass
class Server:
    """A running dashboard, which stops at the end of a `with`."""

    url: str
    home: Path
    process: ForkServerProcess

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join(20)
        if self.process.exitcode is None:  # it waits for a thread that still works for a page
            self.process.kill()
            self.process.join()


def serve(
    home: Path,
    log: Path,
    data_root: Path | None = None,
    *,
    address: str = "127.0.0.1",
    environment: dict[str, str] | None = None,
    script: str = "app.py",
) -> Server:
    """Start the dashboard on a free port and wait until it is healthy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        **os.environ,
        "NEXTLABEL_HOME": str(home),
        "NEXTLABEL_DATA": str(data_root or home / "no-data"),
        "NEXTLABEL_ROOTS": tempfile.gettempdir(),
        **(environment or {}),
    }
    command = ["run", script, "--server.port", str(port), "--server.address", address]
    process = forked.process("streamlit", command, variables, log)
    url = f"http://127.0.0.1:{port}"
    while process.is_alive():
        try:
            if urllib.request.urlopen(f"{url}/_stcore/health", timeout=60).status == 200:
                return Server(url, home, process)
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"The dashboard did not start: {log.read_text()}")
