"""DICOM files, as a viewer shows them: the first frame, through the window that the file names (PS3.3, C.11.2).

pydicom (MIT) reads them, where it is installed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.files import imagefile
from data.files.imagefile import DICOM, File

MISSING = "a DICOM file; install pydicom to read it (pip install pydicom)"
GREY, COLOUR = "DICOM", "DICOM colour"  # as modes
BYTES = 16  # a pixel, while it is brought to 8 bits: the stored values, and two arrays of floats or one of colours


def is_dicom(file: File) -> bool:
    """Whether it has DICOM's mark."""
    with imagefile.reader(file) as opened:
        return opened.read(132)[128:] == DICOM


def head(file: File) -> tuple[int, int, str]:
    """Height, width, and mode, `GREY` or `COLOUR`. Raises ValueError for what cannot be read."""
    data = _read(file, pixels=False)
    height, width = _shape(data)
    return height, width, GREY if _is_grey(data) else COLOUR


def picture(file: File) -> Image.Image:
    """The first frame, L or RGB, 8 bits a channel; takes its share of the memory budget. Raises as `head`.

    Grey values go through the modality's rescaling, then the first window, or the table, that the file has for display; without
    either, the darkest value becomes black and the brightest white. MONOCHROME1 is inverted.
    """
    height, width = _shape(_read(file, pixels=False))
    with imagefile.budget.take(height * width * BYTES):
        data = _read(file, pixels=True)
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import pixel_array

        try:
            stored = pixel_array(data, index=0)
            if not _is_grey(data):
                if data.PhotometricInterpretation == "PALETTE COLOR":
                    stored = apply_color_lut(stored, data)
                if stored.dtype.itemsize > 1:
                    stored = stored >> max(0, 8 * stored.dtype.itemsize - 8)
                return Image.fromarray(stored[..., :3].astype(np.uint8))
            shown = _windowed(apply_modality_lut(stored, data), data)
        except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            syntax = getattr(data.file_meta.get("TransferSyntaxUID"), "name", "unknown")
            raise ValueError(
                f"its pixels cannot be read ({syntax}); export it again, uncompressed, or as PNG"
            ) from error
        if data.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        return Image.fromarray(np.round(255 * shown).astype(np.uint8))


def _read(file: File, *, pixels: bool) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise ValueError(MISSING) from error
    try:
        with imagefile.reader(file) as opened:
            return pydicom.dcmread(opened, stop_before_pixels=not pixels)
    except (InvalidDicomError, EOFError, KeyError, NotImplementedError, ValueError, AttributeError) as error:
        raise ValueError("a DICOM file that is damaged") from error


def _shape(data: Any) -> tuple[int, int]:
    try:
        height, width = int(data.Rows), int(data.Columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("a DICOM file without an image") from error
    imagefile.check_size(width, height)
    return height, width


def _is_grey(data: Any) -> bool:
    return str(data.get("PhotometricInterpretation", "")).startswith("MONOCHROME")


def _windowed(values: NDArray[Any], data: Any) -> NDArray[np.float32]:
    """Values as they are shown, 0 black to 1 white, [H, W]."""
    from pydicom.pixels.processing import apply_voi

    if table := data.get("VOILUTSequence"):
        bits = int(table[0].LUTDescriptor[2])
        return np.asarray(apply_voi(values, data) / ((1 << bits) - 1), np.float32)
    x = values.astype(np.float32)
    centre, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(data.get("VOILUTFunction", "") or "LINEAR").upper()
    if centre is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        low, high = float(x.min()), float(x.max())
        shown = (x - low) / max(high - low, 1e-9)
    elif function == "SIGMOID":
        shown = 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -80, 80)))
    elif function == "LINEAR_EXACT":
        shown = (x - centre) / width + 0.5
    else:
        shown = (x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    return np.asarray(np.clip(shown, 0, 1), np.float32)


def _first(value: Any) -> float | None:
    """The number that an element has, or the first of several."""
    several = [] if value is None else value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return next((float(one) for one in several), None)
