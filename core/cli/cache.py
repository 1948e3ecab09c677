"""What is kept to save computing it again: how much room it takes, and how to make it less."""

import argparse
import json
import math
from datetime import datetime

import pandas as pd

from core.cli.options import Parser
from core.runs import live
from core.runs.run import home
from core.store import cache
from data.errors import UserError
from data.words import count

MEANING = {
    "scores": "scores, embeddings and pre-trained weights",
    "samples": "tables that the pages ask",
    "curves": "simulated relabelling",
    "trainings": "where the weights of equal trainings lie; never pruned",
}


def cache_options(sub: Parser) -> None:
    """How much of it to remove."""
    sub.set_defaults(command=run)
    sub.add_argument(
        "--prune", action="store_true", help="remove the least recently used; what a running worker uses stays"
    )
    sub.add_argument(
        "--keep",
        metavar="SIZE",
        help=f"with --prune: how much may stay, such as 500MB or 0 (default: ${cache.BOUND}, else {cache.DEFAULT})",
    )
    sub.add_argument("--json", action="store_true", help="print one object")


def run(options: argparse.Namespace) -> None:
    """Print what lies in the cache by kind, after pruning it if asked to."""
    if options.keep is not None and not options.prune:
        raise UserError("--keep says how much --prune leaves: give both, or neither.")
    folder, bound = home() / ".cache", cache.bound()
    keep = bound if options.keep is None else cache.bytes_of(options.keep, "--keep")
    gone = cache.prune(folder, keep, before=workers_began()) if options.prune else []
    found = cache.entries(folder)
    total = sum(entry.size for entry in found)
    rows = []
    for kind in cache.KINDS:
        own = [entry for entry in found if entry.kind == kind]
        used = max((entry.used for entry in own), default=None)
        last = None if used is None else datetime.fromtimestamp(used).astimezone().isoformat(timespec="seconds")
        rows.append({"kind": kind, "files": len(own), "bytes": sum(entry.size for entry in own), "last_used": last})
    pruned = {"files": len(gone), "bytes": sum(entry.size for entry in gone)}
    if options.json:
        print(json.dumps({"folder": str(folder), "bytes": total, "bound": bound, "kinds": rows, "pruned": pruned}))
        return
    if options.prune:
        print(f"Removed {count(pruned['files'], 'file')}, {size(pruned['bytes'])}.")
        if total > keep:
            print("What is left above that size is used by a running worker, or may not be pruned.")
    table = pd.DataFrame(rows)
    table["bytes"] = table["bytes"].map(size)
    table["last_used"] = [one[:16].replace("T", " ") if isinstance(one, str) else "—" for one in table["last_used"]]
    table["what"] = table["kind"].map(MEANING)
    print(table.rename(columns={"bytes": "size", "last_used": "last used"}).to_string(index=False))
    print(f"{size(total)} of at most {size(bound)} in {folder}. What is removed is computed again when it is needed.")


def workers_began() -> float:
    """When the first of the workers that are running now began, in seconds since 1970; infinity where none is."""
    return min(
        [worker.began for folder in home().glob("*/") if (worker := live.read(folder)).running], default=math.inf
    )


def size(number: int) -> str:
    """Bytes in a unit that is easy to read: "1.2 GB"."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if number >= 1000**power:
            return f"{number / 1000**power:.1f} {unit}"
    return f"{number} bytes"


COMMANDS = {"cache": cache_options}
