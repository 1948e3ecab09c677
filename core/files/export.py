"""Tables and whole studies as files: CSV and Parquet; a folder of tables and figures."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from core.files.printed import Layout, figure_bytes, has_browser
from data.errors import UserError
from data.files.cache import write_atomically

TABLE_FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the start of what a spreadsheet computes, or of that already quoted


def table_bytes(table: pd.DataFrame, file_format: str) -> bytes:
    """A DataFrame as a file. Raises `UserError` for an unknown format.

    A text that a spreadsheet would compute, such as the sample id `=1+1`, has a ' before it in CSV, which `unguarded` takes
    off again; numbers are left alone.
    """
    if file_format == "csv":
        texts = table.select_dtypes(["object", "string"])
        return table.assign(**{name: texts[name].map(guarded) for name in texts}).to_csv(index=False).encode()
    if file_format == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise UserError(f'"{file_format}" is no table format: choose one of {", ".join(TABLE_FORMATS)}.')


def guarded(cell: Any) -> Any:
    """A text that a spreadsheet would compute with a ' before it; anything else as it is."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The text that `table_bytes` wrote as this cell of a CSV file."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def write_file(path: Path, content: bytes) -> None:
    """Put an exported file at `path`, whose folder is there, whole or not at all. Raises `UserError` where it cannot."""
    write_by(path, lambda temporary: temporary.write_bytes(content))


def write_by(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill an exported file. Raises as `write_file`."""
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent}: make it, or name a file in another one.")
    try:
        write_atomically(path, write)
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}): name a file in a writable folder.") from error


def write_folder(
    folder: Path,
    tables: dict[str, pd.DataFrame],
    figures: dict[str, Any],
    about: dict[str, Any],
    layout: Layout | None = None,
) -> list[Path]:
    """Tables as CSV, figures as PNG (interactive HTML where no Chrome draws them) and `about.json` in a folder.

    layout: of the figures, as in `figure_bytes`. Returns the files. Raises `UserError` where they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {folder} ({error.strerror}): name another one.") from error
    ending = "png" if has_browser() else "html"
    contents = {f"{name}.csv": table_bytes(table, "csv") for name, table in tables.items()}
    contents |= {f"{name}.{ending}": figure_bytes(figure, ending, layout) for name, figure in figures.items()}
    contents["about.json"] = json.dumps(about, indent=1, ensure_ascii=False).encode()
    for name, content in contents.items():
        write_file(folder / name, content)
    return [folder / name for name in contents]
