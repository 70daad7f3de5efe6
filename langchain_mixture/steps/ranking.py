"""How a judge's order is read.

A judge ends with a verdict, which is marked "Ranking:" and has one of three shapes:

- a row: `3, 1, 2`, `Response 3 > Response 1`, `[3, 1, 2]`, or one response a line;
- a list: `1. Response 3`, `2nd: 1`, whose places count up from 1;
- a table with a column of places and a column of responses.

A judge with structured output writes JSON by `RANKING` instead. What has another shape
is not read: a guess would pass for the judge's choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

RANKING: Final[dict[str, Any]] = {
    "title": "ranking",
    "description": "The responses in order, and why.",
    "type": "object",
    "properties": {
        "reasons": {"type": "string", "description": "Your reasons, briefly."},
        "ranking": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "The numbers of the responses, best first.",
        },
    },
    "required": ["reasons", "ranking"],
    "additionalProperties": False,
}
"""The schema of a judgement: reasons come first, so that the order rests on them."""

_LONGEST: Final = 20_000
"""Characters that are read from the end of a text, beside 20 for each response."""


def ranking(text: str, count: int) -> list[int]:
    """Read a judge's order: indices from 0, best first; empty where it is unreadable.

    JSON by `RANKING` is read as such. In any other text the last line marked "Ranking:"
    counts, with what stands beneath it. Without a mark, the text must end with the
    order and nothing else. Repeats and numbers beyond `count` are ignored, and so is
    what stands in parentheses.

    Example:
        >>> ranking("I compared 1 and 2. Ranking: 3, 1", count=4)
        [2, 0]
        >>> ranking('{"reasons": "1 is wrong.", "ranking": [3, 2]}', count=4)
        [2, 1]
        >>> ranking("1st: Response 3, 2nd: Response 1", count=4)
        [2, 0]
        >>> ranking("Response 1 is worse than response 3.", count=4)
        []
    """
    numbers = _by_schema(text)
    if numbers is None:
        end = _end_of(text, _LONGEST + 20 * count)
        if _WORST_FIRST.search(end):
            return []
        lines = [line for line in map(str.strip, _bare(end).splitlines()) if line]
        numbers = _numbers(lines)
    indices = dict.fromkeys(number - 1 for number in numbers)
    return [index for index in indices if 0 <= index < count]


def _by_schema(text: str) -> list[int] | None:
    """Read the numbers in JSON by `RANKING`; None where a text is something else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        order = json.loads(text)["ranking"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_order = isinstance(order, list) and all(type(number) is int for number in order)
    return order if is_order else None


def _numbers(lines: Sequence[str]) -> list[int]:
    marks = [(n, mark) for n, line in enumerate(lines) if (mark := _MARK.match(line))]
    if marks:
        return _verdict(lines, *marks[-1])
    hints = [(n, hint) for n, line in enumerate(lines) if (hint := _HINT.search(line))]
    said = _verdict(lines, *hints[0]) if len(hints) == 1 else []
    return said or _unmarked(lines)


# -- What a text is freed of ----------------------------------------------------------

_WORST_FIRST = re.compile(r"(?i)\bworst\s(?:to|first)|\bascending")

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("*_`#\"'{}\\\u2026", ""),
        **dict.fromkeys("\u2013\u2014\u2022", "-"),  # dashes and bullets
        **dict.fromkeys("\u2192\u227b\u2265\uff1e", ">"),  # arrows and the like
        **dict(zip("\uff0c\u3001\uff1b\uff1a", ",,;:", strict=True)),  # as in Chinese
        "\U0001f947": "1st ",  # medals
        "\U0001f948": "2nd ",
        "\U0001f949": "3rd ",
    }
)


def _end_of(text: str, most: int) -> str:
    """Return the last lines of a text, all of them whole: half a line says anything."""
    text = text.rstrip()
    return text if len(text) <= most else text[-most:].partition("\n")[2]


def _bare(text: str) -> str:
    """Take out of a text what is no part of an order: markup, and asides."""
    text = re.sub(r"```\w*|</?[a-z]\w{0,20}>", "", text).translate(_PLAIN)
    text = re.sub(r"\((\d{1,4})\)", r" \1 ", text)
    for _ in range(2):  # an aside may hold another
        text = re.sub(r"\([^()]*\)", " ", text)
    text = re.sub(r"\[([^][,]*,[^][]*)\]", _as_row, text)
    text = re.sub(r"(?i)\b(?:first|second|third)\b", _as_ordinal, text)
    return re.sub(r"[][]", "", text)


def _as_row(array: re.Match[str]) -> str:
    return " ".join(array[1].split()) + "\n"


def _as_ordinal(word: re.Match[str]) -> str:
    return {"first": "1st", "second": "2nd", "third": "3rd"}[word[0].lower()]


# -- Where the verdict stands ---------------------------------------------------------

_ENDS = r"(?:\s*\b(?:of|by|in|for|from|is|are)\b[^:]{0,80})?\s*:|\s+(?:is|are)\b"

# Such as "Final ranking:", "My ranking of the best 3 is:", or a heading.
_MARK = re.compile(
    r"(?i)(?:\W|\b(?:so|thus|here|is|the|my|final|overall)\b){0,20}"
    rf"(?:ranking|order)s?\b(?:{_ENDS}|\W*$)"
)

# Behind prose, and only where a text has one alone, such as "so the best 2 are".
_HINT = re.compile(
    r"(?i)\b(?:ranking|order|(?:top|best)(?:\s+(?:\d+|ones?|1st|to worst"
    rf"|responses?|answers?)\b){{0,3}})(?:{_ENDS})"
)


def _verdict(lines: Sequence[str], number: int, mark: re.Match[str]) -> list[int]:
    """Read what stands behind a mark, or where nothing does, beneath it."""
    said = lines[number][mark.end() :].strip()
    if again := _HINT.match(said):  # "Ranking: the top 3:"
        said = said[again.end() :].strip()
    verdict = [line for line in (said, *lines[number + 1 :]) if line]
    if not verdict:
        return []
    if _ITEM.match(verdict[0]):
        return _list(verdict)
    if len(verdict) > 1 and len(_row(verdict[1])) > 1:  # one of several orders
        return []
    return _table(verdict) or _column(verdict) or _row(verdict[0])


def _unmarked(lines: Sequence[str]) -> list[int]:
    """Read an order that is all that a text says, or all that its last lines say."""
    rows = [[] if _ITEM.match(line) else _row(line, whole=True) for line in lines]
    if all(len(row) == 1 for row in rows):
        return [number for row in rows for number in row]
    if len(rows[-1]) > 1:
        return rows[-1]
    if best := _BEST.match(lines[-1]):
        return [int(best[1])]
    if heads := [n for n, line in enumerate(lines) if _columns(line)]:
        return _table(lines[heads[-1] :])
    items = [(n, item) for n, line in enumerate(lines) if (item := _ITEM.match(line))]
    starts = [(n, item) for n, item in items if _place(item) == 1]
    if not starts:
        return []
    number, item = starts[-1]
    order = _list(lines[number:])
    # Reasons are numbered in this way, too.
    is_plain = item[3] is not None and order == _first(len(order))
    return [] if is_plain else order


# -- What it says ---------------------------------------------------------------------

_NAME = r"(?:(?:response|answer|candidate|proposal|option|model)s?\b|r(?=\d))"
_PLACE = r"(?:rank|place|position)"

# A response; not 3rd, 30%, 3/10, or 3.5.
_NUMBER = rf"(?:{_NAME}\W{{0,3}})?(\d{{1,4}})(?![\w%/]|\.\d)"

# "3, 1, and then 2".
_ROW = re.compile(
    rf"(?i)[-\s]*{_NUMBER}(?:[\s,;>=&)]+(?:(?:and|then|followed by)\s+)?{_NUMBER})*"
)
_WHOLE = re.compile(r"[\s,.)]*$")

# Words behind a row that leave it as it is, such as in "3, 1: both are right".
_BREAK = re.compile(
    r"(?i)\s*(?:[.;:!-](?!\W*\d)|(?:as|because|since|in th\w+ order|from best)\b)"
)

_BEST = re.compile(
    rf"(?i){_NUMBER} is (?:(?:clearly|by far|the) ){{0,3}}best\b(?: \w+)?\W*$"
)

# One line of a column: what stands in front of a response, it, and what follows it.
_ENTRY = re.compile(
    rf"(?i)(-?\s*(?:{_NAME}\W{{0,3}})?)(\d{{1,4}})(\s?[.):-](?=\s)(?!\s*\d)|,?$)"
)

# A place, in one of three forms, and a response: "rank 1: 3", "1st: 3", "1. 3".
_ITEM = re.compile(
    rf"""(?ix) [-|\s,;>]* (?:(?:and|then)\s)?
    (?: {_PLACE} \W{{0,3}} (\d{{1,4}}) \b
      | (\d{{1,4}}) (?:st|nd|rd|th) \b (?:\s? (?:{_PLACE}|best) \b)?
      | (\d{{1,4}}) (?: \s?[):] | \s?\.(?=\s) | (?=[\s|-]{{1,4}} {_NAME}) ) )
    [\s.:)|=,-]{{0,6}} {_NUMBER} (?!\))"""
)
_PLACE_ALONE = re.compile(r"[-\s]*1\s?[.):]\s")
_MORE = re.compile(rf"(?i)[\s,.;>=&)]*{_NUMBER}")
_PLACES = re.compile(rf"(?i){_PLACE}|no\.?")


def _row(line: str, *, whole: bool = False) -> list[int]:
    """Read responses that follow each other in a line; `whole`: and nothing else."""
    row = _ROW.match(line)
    if row is None or _PLACE_ALONE.match(line) or {",", ">"} <= {*row[0]}:
        return []
    ends = _WHOLE.match(line, row.end()) or (
        not whole and _BREAK.match(line, row.end())
    )
    return [int(number) for number in re.findall(r"\d+", row[0])] if ends else []


def _column(lines: Sequence[str]) -> list[int]:
    """Read responses that stand one a line, in lines of the same shape."""
    order: list[int] = []
    shape: tuple[str, str] | None = None
    for line in lines:
        entry = _ENTRY.match(line)
        if entry is None or shape not in (None, (entry[1], entry[3].strip(","))):
            break
        shape = entry[1], entry[3].strip(",")
        order.append(int(entry[2]))
    return order if len(order) > 1 and not _PLACE_ALONE.match(lines[0]) else []


def _list(lines: Sequence[str]) -> list[int]:
    """Read the responses at places that count up from 1, whatever else is said."""
    order: list[int] = []
    for line in lines:
        at = 0
        while item := _ITEM.match(line, at):
            if _place(item) != len(order) + 1:
                return order if _place(item) == 1 else []
            order.append(int(item[4]))
            at = item.end()
        if at and _MORE.match(line, at):
            return []
    return order


def _place(item: re.Match[str]) -> int:
    return int(item[1] or item[2] or item[3])


def _table(lines: Sequence[str]) -> list[int]:
    """Read the responses of a table in the order of their places."""
    columns = _columns(lines[0])
    if columns is None:
        return []
    order: list[tuple[int, int]] = []
    for line in lines[1:]:
        cells = _cells(line)
        if len(cells) <= max(columns):
            break
        place, name = (re.search(r"\d{1,4}", cells[column]) for column in columns)
        if place and name:  # or it is the line beneath the head
            order.append((int(place[0]), int(name[0])))
    order.sort()
    is_whole = [place for place, _ in order] == _first(len(order))
    return [name for _, name in order] if is_whole else []


def _columns(line: str) -> tuple[int, int] | None:
    """Find the columns of places and of responses in the head of a table."""
    cells = _cells(line)
    places = [n for n, cell in enumerate(cells) if _PLACES.fullmatch(cell)]
    names = [n for n, cell in enumerate(cells) if re.fullmatch(f"(?i){_NAME}", cell)]
    return (places[0], names[0]) if len(places) == len(names) == 1 else None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


def _first(count: int) -> list[int]:
    return list(range(1, count + 1))
