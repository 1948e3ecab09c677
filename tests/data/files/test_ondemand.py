"""Images that are decoded when they are read: as an array in all that is asked of them, in bounded memory."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import decode
from data.files.encoded import Paths
from data.files.maskfile import Legend
from data.files.ondemand import FILL, OnDemand, OnDemandMasks
from data.masks import VOID

N = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(random.integers(0, 256, (10, 14, 3), np.uint8)).save(tmp_path / f"{i:02d}.png")
    return tmp_path.resolve()


def lazy(folder: Path, **options: int) -> OnDemand:
    names = sorted(path.name for path in folder.iterdir())
    return OnDemand(Paths(folder, names, [folder]), (8, 8, 3), **options)


def eager(folder: Path) -> np.ndarray:
    return np.stack([decode.decode(path, 8, 8, False) for path in sorted(folder.iterdir())])


def test_it_is_indexed_like_an_array(folder: Path) -> None:
    images, array = lazy(folder), eager(folder)
    assert (images.shape, images.dtype, images.ndim, len(images), images.nbytes) == (
        array.shape,
        "uint8",
        4,
        N,
        array.nbytes,
    )
    for key in (3, np.int64(5), -1, np.array([4, 4, 0]), [2, 1], array[:, 0, 0, 0] > 100):
        np.testing.assert_array_equal(images[key], array[key])
    for key in (slice(2, 7), slice(None, None, 3), slice(0, 0)):
        np.testing.assert_array_equal(np.asarray(images[key]), array[key])
    np.testing.assert_array_equal(images.view(np.array([7, 1]))[1:][0], array[1])
    np.testing.assert_array_equal(np.stack(list(images)), array)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    seen: list[Path] = []
    original = decode.decode

    def watched(file: Path, *rest: object, **options: object) -> object:
        seen.append(file)
        return original(file, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "decode", watched)
    return seen


def test_what_fits_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, seen = lazy(folder), counted(monkeypatch)
    images[2:5]
    assert seen == []  # a view decodes nothing
    for _ in range(3):
        np.asarray(images)
    assert len(seen) == N


def test_memory_is_bounded_and_a_share_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = eager(folder)
    images = lazy(folder, memory=4 * 8 * 8 * 3)
    assert images._store.kept.shape[0] == 4
    seen = counted(monkeypatch)
    for _ in range(20):
        np.testing.assert_array_equal(images[np.arange(N)], array)
    assert N < len(seen) < 20 * N  # of those that were read last, none would be left
    np.testing.assert_array_equal(lazy(folder, memory=0)[np.array([1, 1])], array[[1, 1]])


def test_threads_see_what_one_sees(folder: Path) -> None:
    array, images, wrong = eager(folder), lazy(folder, memory=5 * 8 * 8 * 3), []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(30):
            rows = random.integers(0, N, 6)
            if not np.array_equal(images[rows], array[rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_that_cannot_be_read_is_named_and_grey(folder: Path) -> None:
    images = lazy(folder)
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:80])
    (folder / "05.png").unlink()
    assert images.unreadable == {}
    assert (images[3] == FILL).all()
    assert list(images.unreadable) == [3]
    assert images.readable(np.array([2, 3, 5])).tolist() == [True, False, False]
    assert images.unreadable[5] == "No such file or directory"
    assert images[3:7].unreadable == {0: images.unreadable[3], 2: images.unreadable[5]}
    assert images.whole(5, 100) is images.file_shape(5) is None


def test_a_link_that_was_turned_outwards_is_not_followed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (8, 8)).save(outside)
    images = lazy(folder)
    (folder / "02.png").unlink()
    (folder / "02.png").symlink_to(outside)
    assert images.readable(np.array([2])).tolist() == [False]
    assert "leads out" in images.unreadable[2]
    assert images.whole(2, 100) is None


def test_the_version_follows_the_files_and_how_they_are_decoded(folder: Path) -> None:
    one = lazy(folder)
    assert one.version == lazy(folder).version
    others = [one[:5], one.view(np.arange(N)[::-1]), lazy(folder, fit="crop"), lazy(folder, depth=12)]
    assert len({one.version, *(other.version for other in others)}) == 5
    Image.new("RGB", (9, 9)).save(folder / "04.png")
    assert lazy(folder).version != one.version


def test_the_file_behind_an_image_is_there_in_its_own_shape(folder: Path) -> None:
    images = lazy(folder)[4:]
    assert images.file_shape(0) == (10, 14)
    np.testing.assert_array_equal(images.whole(0, 100), np.asarray(Image.open(folder / "04.png")))
    assert images.whole(0, 7).shape == (5, 7, 3)
    assert images.original(0) == folder / "04.png"


# --- masks -----------------------------------------------------------------------------------------------------------

LEGEND = Legend({0: 0, 1: 1, 2: 2, 9: VOID}, 3, "classes.csv")


@pytest.fixture
def codes(folder: Path) -> np.ndarray:
    """A mask for every image but the fifth, in a folder of their own: [12, 10, 14] of classes, -1 for unknown."""
    codes = np.random.default_rng(1).integers(-1, 3, (N, 10, 14))
    (folder / "masks").mkdir()
    for i in range(N):
        if i != 5:
            Image.fromarray(np.where(codes[i] < 0, 9, codes[i]).astype(np.uint8)).save(folder / f"masks/{i:02d}.png")
    codes[5] = -1
    return codes


def lazy_masks(folder: Path, shape: tuple[int, int] = (10, 14), **options: int) -> OnDemandMasks:
    images = Paths(folder, [f"{i:02d}.png" for i in range(N)], [folder])
    masks = Paths(folder, [f"masks/{i:02d}.png" for i in range(N) if i != 5], [folder])
    place = np.array([-1 if i == 5 else i - (i > 5) for i in range(N)])
    return OnDemandMasks(masks, place, images, LEGEND, shape, fit="resize", blank=place < 0, **options)


def test_masks_are_indexed_like_an_array(folder: Path, codes: np.ndarray) -> None:
    masks = lazy_masks(folder)
    assert (masks.shape, masks.dtype, masks.ndim, len(masks)) == ((N, 10, 14), "int64", 3, N)
    assert masks.nbytes == codes.nbytes
    for key in (3, np.int64(5), -1, np.array([4, 4, 0]), [2, 1], codes[:, 0, 0] > 1):
        np.testing.assert_array_equal(masks[key], codes[key])
        assert masks[key].dtype == np.int64
    for key in (slice(2, 7), slice(None, None, 3), slice(0, 0)):
        np.testing.assert_array_equal(np.asarray(masks[key]), codes[key])
    np.testing.assert_array_equal(masks.view(np.array([7, 1]))[1:][0], codes[1])
    assert masks.view(np.array([7, 5])).blank.tolist() == [False, True]


def test_the_memory_of_masks_is_a_byte_a_pixel(folder: Path, codes: np.ndarray) -> None:
    masks = lazy_masks(folder, memory=4 * 10 * 14)
    assert masks._store.kept.nbytes == 4 * 10 * 14
    for _ in range(3):
        np.testing.assert_array_equal(masks[np.arange(N)], codes)


def test_masks_are_scaled_by_the_nearest_pixel(folder: Path, codes: np.ndarray) -> None:
    np.testing.assert_array_equal(lazy_masks(folder, (5, 7))[3], codes[3][1::2, 1::2])
    np.testing.assert_array_equal(lazy_masks(folder, (20, 28))[3], np.repeat(np.repeat(codes[3], 2, axis=0), 2, axis=1))


def test_a_mask_that_cannot_be_read_is_named_and_unknown(folder: Path, codes: np.ndarray) -> None:
    masks = lazy_masks(folder)
    (folder / "masks/03.png").write_bytes((folder / "masks/03.png").read_bytes()[:60])
    Image.new("L", (14, 10), 7).save(folder / "masks/04.png")
    Image.new("L", (3, 3)).save(folder / "masks/06.png")
    (folder / "masks/07.png").unlink()
    assert (masks[np.array([3, 4, 6, 7])] == -1).all()
    assert masks.readable(np.arange(2, 8)).tolist() == [True, False, False, True, False, False]
    said = masks.unreadable
    assert said[4].startswith("its mask holds the value 7, which classes.csv does not name")
    assert said[6].startswith("its mask has 3 × 3 pixels")
    assert said[7] == "its mask: No such file or directory"


def test_the_version_of_masks_follows_files_rows_and_meaning(folder: Path, codes: np.ndarray) -> None:
    masks = lazy_masks(folder)
    assert lazy_masks(folder).version == masks.version
    others = [masks[1:], masks.view(np.array([1, 0])), lazy_masks(folder, (5, 7))]
    Image.new("L", (14, 10)).save(folder / "masks/04.png")
    others.append(lazy_masks(folder))
    assert len({masks.version, *(other.version for other in others)}) == 5
