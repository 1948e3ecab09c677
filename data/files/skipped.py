"""What was left out of a data set in few words: thousands of files, counted by reason, with a few names each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

EXAMPLES, REASONS = 3, 8
OTHER = "other reasons"
LEFT_OUT = ".left-out.json"  # what `data.files.upload` did not unpack: pairs of name and reason


@dataclass(frozen=True)
class Group:
    """n files left out for one reason, and the first few of their names."""

    reason: str
    n: int
    examples: list[str]


def groups(skipped: Iterable[tuple[str, str]], counts: Mapping[str, int] | None = None) -> list[Group]:
    """Pairs of name and reason, by reason: the most frequent first, and rare ones together beyond `REASONS`.

    counts: how many files each reason has, where the pairs are examples only.
    """
    names: dict[str, list[str]] = {}
    for name, reason in skipped:
        names.setdefault(reason, []).append(name)
    number = {reason: len(found) for reason, found in names.items()} | dict(counts or {})
    ordered = sorted(names, key=lambda reason: -number[reason])
    if len(ordered) > REASONS:
        rare = ordered[REASONS - 1 :]
        names[OTHER] = [name for reason in rare for name in names[reason]]
        number[OTHER] = sum(number[reason] for reason in rare)
        ordered = [*ordered[: REASONS - 1], OTHER]
    return [Group(reason, number[reason], names[reason][:EXAMPLES]) for reason in ordered]


def sentence(found: list[Group]) -> str:
    """60 files are left out: not an image that can be read (58: a.txt, b.pdf, c, …) · it lies in no class folder (2: d, e)."""
    total = sum(group.n for group in found)
    reasons = " · ".join(f"{group.reason} ({_names(group)})" for group in found)
    return f"{total:,} {'file is' if total == 1 else 'files are'} left out: {reasons}."


def _names(group: Group) -> str:
    more = ", …" if group.n > len(group.examples) else ""
    return f"{group.n:,}: {', '.join(map(_plain, group.examples))}{more}"


def _plain(name: str) -> str:
    """A name that does nothing to the terminal it is printed on."""
    return "".join(character if character.isprintable() else "�" for character in name)
