"""The command line: finds the command that was asked for, runs it, and says how it ended.

`python -m core --help`, or `nextlabel --help` where it is installed. Everything that the dashboard starts can be started
here. Only the command's own module is imported.
"""

import argparse
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from core import methods
from core.cli.options import Parser
from core.cli.shared import INTERRUPTED
from core.runs.spec import nearest
from data.errors import UserError

# Threads that wait for each other sleep instead of spinning, before torch reads it: beside a second process on the same
# two cores, spinning made a forward pass five times slower; alone it made no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = {  # name: (module of core.cli, what it does)
    "app": ("machine", "open the dashboard: serve it to the browsers of this machine"),
    "datasets": ("machine", "list the data sets and what each needs"),
    "run": ("runs", "start a run, or a study of several, and wait for its end"),
    "resume": ("runs", "go on with a run or a study that was stopped or killed"),
    "step": ("runs", "add one cycle to a run"),
    "rank": ("rank", "rank labels to check, or samples to label, by predictions of your own model; nothing is trained"),
    "show": ("reading", "what a run found"),
    "branch": ("runs", "start a run that shares the past of another, and goes on otherwise"),
    "compare": ("studies", "compare several runs with each other and with the paper, by tables and curves"),
    "diff": ("reading", "what differs between two runs, or two cycles of one"),
    "evaluate": ("studies", "what cleaned labels are worth: train classifiers before and after"),
    "influence": ("studies", "whether influence predicts what labels are worth: remove some, retrain, compare"),
    "import": ("files", "import labels that people gave: Label Studio's export, or a table of annotations"),
    "explain": (
        "reading",
        "the gradient norm of one sample, layer by layer, what its label does to each test image, or its gradient by pixel",
    ),
    "list": ("reading", "list runs and studies, the newest first"),
    "export": ("files", "write a figure or a table of a run to a file"),
    "budget": ("reading", "what a budget buys and what a target costs, by every policy"),
    "report": ("files", "write a run on one page"),
    "bundle": ("files", "write a whole run as one file, which another installation opens"),
    "open": ("files", "open the bundle of a run: it is listed and shown like those made here"),
    "cache": ("cache", "show how much room the cache takes, and prune it; runs need nothing of it"),
    "password": ("machine", "make the hash of a password, for a dashboard that other machines reach"),
    "bench": ("machine", "measure this machine against the named rivals"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the user can mend it, 1 an internal error, 130 interrupted."""
    for sentence in methods.refused():  # before a name that is missing for it is refused
        print(f"nextlabel: {sentence}", file=sys.stderr)
    try:
        options = parsed(sys.argv[1:] if arguments is None else arguments)
        return int(options.command(options) or 0)
    except UserError as error:
        print(f"nextlabel: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nextlabel: interrupted; nothing finished is lost, `resume` goes on.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for one, had enough
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        print("nextlabel: this is an internal error; please report it with the lines above.", file=sys.stderr)
        return 1


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The options of a command, with the function that runs it as `command`. Raises `UserError` for what is none."""
    installed = Path(sys.argv[0]).stem == "nextlabel"
    top = Parser(
        prog="nextlabel" if installed else "python -m core",
        description="Which sample to label next, and which label to check next.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    known: list[str] = []
    asked = arguments[0] if arguments else ""
    for name, (place, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if name == asked:
            import_module(f"core.cli.{place}").COMMANDS[name](sub)
            known = sub.flags()
    if asked and not asked.startswith("-") and asked not in COMMANDS:
        raise UserError(f'There is no command "{asked[:60]}"{nearest(asked, list(COMMANDS))}')
    found, rest = top.parse_known_args(arguments)
    if rest:
        what, names = ("option", known) if rest[0].startswith("-") else ("argument", [])
        raise UserError(f"`{asked}` has no {what} {rest[0][:60]}{nearest(rest[0], names)}")
    return found


def command() -> NoReturn:
    """What a shell starts: `main`, and its exit code."""
    status = main()
    if status == INTERRUPTED:
        # Where Ctrl-C met an import inside of a C extension, Python would exit as killed by the signal
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    command()
