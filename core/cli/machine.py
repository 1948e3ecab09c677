"""Commands about this machine: datasets, password, bench."""

import argparse
import getpass
import json
import subprocess
import sys

import data
from core import password
from core.cli.options import Parser
from core.runs import jobs
from data.errors import UserError


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
    """Run benchmarks/."""
    return subprocess.call([sys.executable, "-m", "benchmarks"], cwd=jobs.ROOT)


COMMANDS = {"datasets": datasets_options, "password": password_options, "bench": bench_options}
