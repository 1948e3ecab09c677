"""Commands about this machine: app, datasets, password, bench."""

import argparse
import getpass
import json
import os
import subprocess
import sys

import data
from core import password
from core.cli.options import Parser
from core.runs import jobs
from data.errors import UserError


def app_options(sub: Parser) -> None:
    """Options of `app`."""
    sub.set_defaults(command=app)
    sub.add_argument("--port", type=int, help="port to listen on (default: 8501, or the next that is free)")
    sub.add_argument("--address", help="address to listen on (default: this machine only, 127.0.0.1)")


def datasets_options(sub: Parser) -> None:
    """Options of `datasets`."""
    sub.set_defaults(command=datasets)
    sub.add_argument("--json", action="store_true")


def password_options(sub: Parser) -> None:
    """Options of `password`."""
    sub.set_defaults(command=make_password)


def bench_options(sub: Parser) -> None:
    """Options of `bench`."""
    sub.set_defaults(command=bench)


def app(options: argparse.Namespace) -> None:
    """Streamlit instead of this process, so that signals and the terminal are its own."""
    arguments = ["-m", "streamlit", "run", str(jobs.ROOT / "app.py")]
    for name in ("port", "address"):
        if (value := getattr(options, name)) is not None:
            arguments += [f"--server.{name}", str(value)]
    os.execv(sys.executable, [sys.executable, *arguments])


def datasets(options: argparse.Namespace) -> None:
    """Data sets, available or not."""
    sources = data.available()
    if options.json:
        print(json.dumps([vars(source) for source in sources], indent=1))
        return
    for source in sources:
        print(f"{source.name:10} {'ready  ' if source.available else 'missing'} {source.title}")
        if source.reason:
            print(f"{'':18} {source.reason}")


def make_password(options: argparse.Namespace) -> None:
    """Asked for twice, and never shown."""
    given = getpass.getpass("Password: ")
    made = password.hashed(given)
    if getpass.getpass("Once more: ") != given:
        raise UserError("These are two different passwords: try again.")
    print(f"{password.VARIABLE}='{made}'")


def bench(options: argparse.Namespace) -> int:
    """Run benchmarks/. Raises `UserError` where they are not: an installed package is without them."""
    if not (jobs.ROOT / "benchmarks").is_dir():
        raise UserError("The benchmarks come with the source, not with the installed package: run `make bench` there.")
    return subprocess.call([sys.executable, "-m", "benchmarks"], cwd=jobs.ROOT)


COMMANDS = {"app": app_options, "datasets": datasets_options, "password": password_options, "bench": bench_options}
