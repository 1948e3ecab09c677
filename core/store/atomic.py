"""Files that are there whole or not at all."""

import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write below `path` into a `UserError` that says what to do."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(
            f"Cannot write to {path} ({error}): free some space or make the folder writable, or set NEXTLABEL_HOME "
            "to another folder. What was finished before is kept."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a crash, sees the old file or the new one, never a part."""
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)  # one level: a run whose folder was deleted is not made again
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)  # of what a full disk took of it
            raise


def write_table(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """A DataFrame as Parquet, atomically; options: of `pyarrow.parquet.write_table`."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, **options)
    write_atomically(path, buffer.getvalue())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """An array as .npy without pickle, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
