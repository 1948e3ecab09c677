"""Numbers with their nouns."""


def count(number: int, one: str, many: str | None = None) -> str:
    """ "1 epoch", "1,200 epochs". many: the plural, by default with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
