"""Thousands of files that were left out, in few words."""

from data.files import skipped
from data.files.skipped import Group


def test_by_reason_the_most_frequent_first() -> None:
    found = skipped.groups([("a", "cut"), *((f"{i}.txt", "no image") for i in range(5000)), ("b", "cut")])
    assert found == [Group("no image", 5000, ["0.txt", "1.txt", "2.txt"]), Group("cut", 2, ["a", "b"])]
    assert (
        skipped.sentence(found) == "5,002 files are left out: no image (5,000: 0.txt, 1.txt, 2.txt, …) · cut (2: a, b)."
    )
    assert skipped.sentence(skipped.groups([("a", "cut")])) == "1 file is left out: cut (1: a)."
    assert skipped.groups([]) == []


def test_examples_with_the_counts_of_all() -> None:
    assert skipped.groups([("a", "cut"), ("b", "no image")], {"no image": 70, "cut": 1}) == [
        Group("no image", 70, ["b"]),
        Group("cut", 1, ["a"]),
    ]


def test_many_reasons_stay_few() -> None:
    found = skipped.groups([(f"{i}.png", f"reason {i}") for i in range(1000)])
    assert len(found) == skipped.REASONS
    assert (found[-1].reason, sum(group.n for group in found)) == ("other reasons", 1000)


def test_a_name_does_nothing_to_a_terminal() -> None:
    assert "\x1b" not in skipped.sentence(skipped.groups([("a\x1b[2J\n.txt", "no image")]))
