"""A download ends: with the file, or with a sentence."""

import hashlib
import socket
import threading
import time
from pathlib import Path

import pytest

from data.errors import UserError
from data.files import download


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        url, start = f"http://127.0.0.1:{server.getsockname()[1]}/file.bin", time.monotonic()
        with pytest.raises(UserError, match=r"file\.bin could not be downloaded .*timed out.*; do it by hand"):
            download.fetch(url, tmp_path / "file.bin", "md5", "0", "do it by hand")
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TOTAL", 0.2)
    with Path("/dev/zero").open("rb") as endless:
        monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: endless)
        with pytest.raises(UserError, match=r"not finished after 0\.2 s"):
            download.fetch("http://x/y", tmp_path / "y", "md5", "0", "do it by hand")
    assert list(tmp_path.iterdir()) == []


def test_a_real_answer(tmp_path: Path) -> None:
    body = b"the data set"

    def serve(server: socket.socket) -> None:
        with server.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\n" + body)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        target = tmp_path / "new" / "file.bin"
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        download.fetch(url, target, "sha256", hashlib.sha256(body).hexdigest(), "")
    assert target.read_bytes() == body
