"""The table that says what the pixels of masks mean: classes.csv or classes.txt, one class per line.

    name                     masks hold 0 for the first class, 1 for the second, …
    value,name               masks hold these values (0 … 255)
    name,r,g,b               masks show these colours

With or without a header. A class whose name is one of `VOID_NAMES` is none: its pixels are unknown.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from data.errors import UserError
from data.files.encoded import Links
from data.files.maskfile import Key, Legend
from data.masks import VOID

TABLES = ("classes.csv", "classes.txt")
COLOURS = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
NAMES, VALUES = {"name", "class", "label"}, {"value", "id", "index"}
MOST_LINES = 5_000  # of a table, whose every line is held against the others
FORMS = "name, or value,name, or name,r,g,b"
EXPECTED = f"expected the lines {FORMS}"
VOID_NAMES = {"void", "unlabelled", "unlabeled", "unknown", "ignore"}
"""What pixels may be called whose class is not known; this is no class."""


def read(root: Path) -> tuple[list[tuple[Key, str]], str]:
    """Values or colours, and the names of their classes, from the table of a folder; and what it is called."""
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise UserError(f"there is no {' or '.join(TABLES)} in {root}; write one class per line: {FORMS}")
    if Links(root).leads_out(str(root), table.name):
        raise UserError(f"{table} is a link that leads out of the folder; put the table itself there")
    try:
        with table.open(encoding="utf-8-sig", newline="") as opened:
            rows = [[cell.strip() for cell in row] for row in csv.reader(opened, skipinitialspace=True)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{table.name} cannot be read as a UTF-8 table ({error}); save it again as CSV, UTF-8"
        ) from error
    lines = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if len(lines) > MOST_LINES:
        raise UserError(f"{table.name} has {len(lines):,} lines, and {MOST_LINES:,} are read; name each class once")
    if lines and _is_header(lines[0][1]):
        lines = _in_order(lines)
    found: list[tuple[Key, str]] = []
    for number, row in lines:
        where = f"line {number} of {table.name}"
        if len(row) == 1 and len(lines[0][1]) == 1:
            if row[0] in (name for _, name in found):
                raise UserError(f"{where} names {row[0]!r} a second time; name every class once")
            found.append((len(found), row[0]))
        elif len(row) == 2 and len(lines[0][1]) == 2:
            found.append((_byte(row[0], where), row[1]))
        elif len(row) == 4 and len(lines[0][1]) == 4:
            red, green, blue = (_byte(cell, where) for cell in row[1:])
            found.append(((red, green, blue), row[0]))
        else:
            raise UserError(f"{where} reads {','.join(row)[:60]!r}; {EXPECTED}, all of one kind")
    return found, table.name


def _is_header(row: Sequence[str]) -> bool:
    words = {cell.lower() for cell in row}
    return bool(words & NAMES) and words <= NAMES | VALUES | set().union(*COLOURS)


def _in_order(lines: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The lines below a header, their cells in the order that lines without one have."""
    header = [cell.lower() for cell in lines[0][1]]
    wanted = [NAMES, *COLOURS] if len(header) == 4 else [VALUES, NAMES] if len(header) == 2 else [NAMES]
    places = [next((k for k, word in enumerate(header) if word in words), None) for words in wanted]
    if None in places or len(places) != len(header):
        raise UserError(f"the columns of the table of classes are {', '.join(header)}; {EXPECTED}")
    return [
        (number, [row[k] for k in places] if len(row) == len(header) else row)  # type: ignore[index]
        for number, row in lines[1:]
    ]


def _byte(cell: str, where: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and int(cell) <= VOID):
        raise UserError(f"{where} holds {cell[:20]!r} where a whole number from 0 to {VOID} is wanted; {EXPECTED}")
    return int(cell)


def legend(given: Sequence[tuple[Key, str]], source: str) -> tuple[list[str], Legend]:
    """The names of the classes, and what the values or colours that have them mean; several may have the same."""
    names: list[str] = []
    classes: dict[Key, int] = {}
    for key, name in given:
        if not name:
            raise UserError(f"{source} has a class without a name; name it, or call it void if its pixels are unknown")
        if key in classes:
            raise UserError(f"{source} names {key} a second time, {name!r}; give every value or colour one class")
        if name.lower() in VOID_NAMES:
            classes[key] = VOID
            continue
        if name not in names:
            names.append(name)
        classes[key] = names.index(name)
    if not names:
        raise UserError(f"{source} names no class; write one class per line: {FORMS}")
    if not 2 <= len(names) <= VOID:
        raise UserError(
            f"{source} names {len(names)} class{'es' * (len(names) != 1)}, void left out, and masks have 2 to {VOID}; name the "
            "background too, or merge some"
        )
    assumed = isinstance(given[0][0], int) and VOID not in classes
    if assumed:
        classes[VOID] = VOID
    return names, Legend(classes, len(names), source, assumed)
