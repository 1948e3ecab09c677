"""Label Studio's RLE of what its brush has drawn: the values of an RGBA picture, all four alike, 255 where the brush was.

A stream of bits, highest first: 32 for the number of values, 5 for the bits of a value less 1, four times 4 for the bits of a
run's length less 1; then runs: 1 bit, set where all its values are alike; 2 for which of the four lengths it has; the length
less 1; and one value, or all of them. After https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
"""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # [H, W]
CHANNELS = 4
LENGTHS = (3, 4, 8, 16)  # bits of a run's length that Label Studio's tools write
HALF = 128  # of alpha, from which on a pixel counts as drawn: the brush's rim is softened


def encoded(mask: Mask) -> list[int]:
    """A mask as the bytes of `rle`."""
    values = np.asarray(mask, np.bool_).ravel()
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, values.size)
    bits = [f"{CHANNELS * values.size:032b}{7:05b}", *(f"{bits - 1:04b}" for bits in LENGTHS)]
    start = 0
    for end in ends.tolist():
        left, value = CHANNELS * (end - start), 255 * int(values[start])
        while left:
            run = min(left, 1 << LENGTHS[-1])
            which = next(k for k, size in enumerate(LENGTHS) if run <= 1 << size)
            bits.append(f"1{which:02b}{run - 1:0{LENGTHS[which]}b}{value:08b}")
            left -= run
        start = end
    return np.packbits(np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0")).tolist()


def decoded(rle: list[int], height: int, width: int) -> Mask:
    """The mask of this size that the bytes of `rle` hold. Raises ValueError where they do not."""
    try:
        stream = _Bits(bytes(list(rle)))  # of a number, `bytes` alone would make so many
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("a brush whose rle is no list of bytes") from error
    n, size = stream.take(32), stream.take(5) + 1
    if n != CHANNELS * height * width:
        raise ValueError(
            f"a brush of {n:,} values, and an image of {height} × {width} pixels has {CHANNELS * height * width:,}"
        )
    if size != 8:
        raise ValueError(f"a brush with values of {size} bits; 8 are expected")
    lengths = [stream.take(4) + 1 for _ in range(4)]
    values, at = np.empty(n, np.uint8), 0
    while at < n:
        alike, which = stream.take(1), stream.take(2)
        run = stream.take(lengths[which]) + 1
        if at + run > n:
            raise ValueError("a brush whose runs are longer than the image")
        if alike:
            values[at : at + run] = stream.take(8)
        else:
            values[at : at + run] = np.frombuffer(stream.take(8 * run).to_bytes(run, "big"), np.uint8)
        at += run
    return np.asarray(values.reshape(height, width, CHANNELS)[..., -1] >= HALF)


class _Bits:
    """Bits of bytes, read in order."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, n: int) -> int:
        """The next n bits as a number. Raises ValueError where there are not so many."""
        end = self.at + n
        if end > 8 * len(self.content):
            raise ValueError("a brush whose rle ends too early")
        whole = int.from_bytes(self.content[self.at >> 3 : (end + 7) >> 3], "big")
        self.at = end
        return (whole >> (-end % 8)) & ((1 << n) - 1)
