"""How a judge's order is read."""

from __future__ import annotations

import re
from collections.abc import Sequence


def ranking(text: str, count: int) -> list[int]:
    """Read a judge's order: indices from 0, best first; empty where unreadable.

    The last line marked "Ranking:" wins, or the list beneath it; else the last list
    of numbers in a line; else the first number of each item of a list; else the
    numbers in the order in which they appear. Repeats and numbers beyond `count` are
    ignored, and so is what stands in parentheses.

    Example:
        >>> ranking("Here are the top 3: 2, 1, 4", count=4)
        [1, 0, 3]
        >>> ranking("Final ranking: Response 3, Response 1", count=4)
        [2, 0]
    """
    lines = [_bare(line) for line in text.splitlines()]
    marked = [
        (line[found.end() :], lines[number:])
        for number, line in enumerate(lines, 1)
        if (found := _MARKED.match(line))
    ]
    lists = [found[0] for line in lines for found in _LIST.finditer(line)]
    sources = (
        _verdict(*marked[-1]) if marked else "",
        lists[-1] if lists else "",
        _items(lines),
        " ".join(lines),
    )
    source = next((source for source in sources if re.search(r"\d", source)), "")
    indices = (int(number) - 1 for number in re.findall(r"\d+", source))
    return list(dict.fromkeys(index for index in indices if 0 <= index < count))


# Each of these is bounded, as a judge may write digits or dashes to its token limit.
_MARKED = re.compile(
    r"(?i)\W{0,20}(?:(?:final|overall|my|the)\s{1,3}){0,3}"
    r"ranking\W{0,20}(?:(?:of|from|by|is)\b[^:]{0,80})?:"
)
_LIST = re.compile(
    r"\d{1,4}(?:\s{0,3}(?:[,;>=\uff0c\u3001]|\band\b)\s{0,3}(?:and\s)?\d{1,4})+"
)
_ITEM = re.compile(r"(?i)\s{0,9}(?:\d{1,3}(?:st|nd|rd|th)?[.):]|[-•])\s")


def _bare(line: str) -> str:
    """Take out of a judge's line what is no part of an order."""
    line = re.sub(r"\d{5,}|\([^()]{0,200}\)", "", line)
    line = re.sub(r"(?i)\b(?:top|best)\s{1,3}\d{1,4}\b", "", line)
    words = r"(?i)\b(?:response|answer|proposal|candidate)s?\b|[][#*_`\"']"
    return re.sub(words, "", line)


def _verdict(said: str, beneath: Sequence[str]) -> str:
    """Give what is said behind a mark, or where nothing is, what stands beneath it."""
    places = re.findall(r"(\d{1,3})\)\s{0,5}(\d{1,4})", said)  # 1) 3, 2) 1
    if len(places) > 1 and [int(place) for place, _ in places] == [
        *range(1, len(places) + 1)
    ]:
        return ",".join(number for _, number in places)
    if said.strip():
        return said
    return _items(beneath) or " ".join(beneath)


def _items(lines: Sequence[str]) -> str:
    """Give the first number of each item of a list, without the item's own."""
    items = [line[found.end() :] for line in lines if (found := _ITEM.match(line))]
    return ",".join(n[0] for item in items if (n := re.search(r"\d+", item)))
