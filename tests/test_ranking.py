"""How a judge's order is read."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_mixture.steps.prompts import RANK
from langchain_mixture.steps.ranking import ranking

PLACES: list[tuple[str, list[int]]] = [
    ("Ranking:\n1. Response 3\n2. Response 1", [2, 0]),
    ("Ranking:\n1: 3\n2: 1\n3: 2", [2, 0, 1]),
    ("Ranking:\n1st: Response 3\n2nd: Response 1", [2, 0]),
    ("Ranking: 1) Response 3, 2) Response 1", [2, 0]),
    ("Ranking: 1. Response 3, 2. Response 1", [2, 0]),
    ("Ranking: 1st: 3, 2nd: 1", [2, 0]),
    ("Ranking: #1: 3, #2: 1", [2, 0]),
    ("Ranking:\n1st place: Response 3\n2nd place: Response 1", [2, 0]),
    ("Ranking:\n| Rank | Response |\n|---|---|\n| 1 | 3 |\n| 2 | 1 |", [2, 0]),
    ("Ranking:\n| 1 | Response 3 |\n| 2 | Response 1 |", [2, 0]),
    (
        "Ranking:\n\U0001f947 Response 3\n\U0001f948 Response 1\n\U0001f949 Response 2",
        [2, 0, 1],
    ),
    ("Ranking:\nFirst: Response 3\nSecond: Response 1", [2, 0]),
    ("Ranking: first 3, second 1", [2, 0]),
    ("Ranking:\nRank 1: Response 3\nRank 2: Response 1", [2, 0]),
    ("Ranking:\n#1 \u2013 Response 3\n#2 \u2013 Response 1", [2, 0]),
    ("Ranking: 1. Response 3\n2. Response 1", [2, 0]),
    (
        "Ranking:\n1. **Response 3**: right (9/10)\n   - It cites 2 sources.\n\n"
        "2. **Response 1**: vague (7/10)\n   - 1 error.",
        [2, 0],
    ),
    ("Ranking:\n1) 3\n2) 1\n\nNote: 1. Response 2 was close. 2. It was late.", [2, 0]),
    ('Ranking: {"1": 3, "2": 1}', [2, 0]),
    ("Ranking: 2, 1\n1. Response 1 is vague.\n2. Response 2 is right.", [1, 0]),
    (
        "Here is the ranking of the responses:\n\n"
        "1. **Response 3** - clear\n2. **Response 1**",
        [2, 0],
    ),
    ("Ranking: 1 - Response 3, 2 - Response 1", [2, 0]),
    ("Ranking:\n1. Response 3 (better than Response 2)\n2. Response 1", [2, 0]),
    ("Ranking:\n1. Response 3 is better than Response 2\n2. Response 1", [2, 0]),
]
"""Lists and tables: their places are not responses."""

ROWS: list[tuple[str, list[int]]] = [
    ("I compared 1, 2, 3.\nRanking: 3, 1", [2, 0]),
    ("Ranking: 1, 2\nOn reflection:\n**Ranking:** 4 > 2", [3, 1]),
    ("ranking: 2,2,9,0,1", [1, 0]),
    ("Ranking (best first): 3, 2", [2, 1]),
    ("Response 1 is vague.\n\nFinal Ranking: Response 2, Response 1", [1, 0]),
    ("1 is vague, 2 is right.\n**Final Ranking:** [2] > [1]", [1, 0]),
    ("I compared 1, 2 and 3.\nThe final ranking is: 2", [1]),
    ("Final ranking: 2, 1\nNote: responses 1, 3 share an error.", [1, 0]),
    ("Ranking: 2, 1\n\nRanking rationale: 1 is less complete", [1, 0]),
    ("Ranking:\n\n3 > 1\nas 1 is short", [2, 0]),
    ("Ranking: 3 (better than 1), 2", [2, 1]),
    ("Final ranking: 2) 1) 3)", [1, 0, 2]),
    ("Ranking: 2, 1) 3", [1, 0, 2]),
    ("Ranking: top 2: 3, 1", [2, 0]),
    ("### Ranking\n2 > 1", [1, 0]),
    ("Ranking of the best 3 responses: #2, #1, and #4", [1, 0, 3]),
    ('{"ranking": [2, 1], "reason": "clear"}', [1, 0]),
    ("Ranking: Response 3 > Response 1 > Response 2", [2, 0, 1]),
    ("Ranking: 3 > 1 >= 2", [2, 0, 1]),
    ("Ranking: 3 \u2192 1 \u2192 2", [2, 0, 1]),
    ("Ranking: 3 \u227b 1", [2, 0]),
    ("Ranking: [3, 1, 2]", [2, 0, 1]),
    ('```json\n{"ranking": [3, 1]}\n```', [2, 0]),
    ('{"ranking": ["Response 3", "Response 1"], "reason": "1 is vague"}', [2, 0]),
    ("Ranking: (3), (1), (2)", [2, 0, 1]),
    ("Ranking: 3 1 2", [2, 0, 1]),
    ("Ranking: 3, 1, 2.", [2, 0, 1]),
    ("Ranking: 3, 1, and 2", [2, 0, 1]),
    ("Ranking: 3, then 1, then 2", [2, 0, 1]),
    ("Ranking: 3 followed by 1", [2, 0]),
    ("Ranking: 3; 1; 2", [2, 0, 1]),
    ("Ranking: R3, R1", [2, 0]),
    ("Ranking: responses 3, 1 and 2", [2, 0, 1]),
    ("Ranking\uff1a3\uff0c1\uff0c2", [2, 0, 1]),
    ("RANKING: 3, 1", [2, 0]),
    ("Rankings: 3, 1", [2, 0]),
    ("__Ranking:__ 3, 1", [2, 0]),
    ("**Ranking**: 3, 1", [2, 0]),
    ("> Ranking: 3, 1", [2, 0]),
    ("- Ranking: 3, 1", [2, 0]),
    ("## Final Ranking\n\n3, 1, 2", [2, 0, 1]),
    ("My final ranking is 3, 1, 2.", [2, 0, 1]),
    (
        "So, here is my ranking of the best 2 responses, from best to worst: 3, 1",
        [2, 0],
    ),
    ("Ranking: 3, 1, 2 because 3 is the only right one", [2, 0, 1]),
    ("Ranking: 3, 1. Response 2 is wrong.", [2, 0]),
    ("Ranking: 3 (clear (and right)), 1 (long)", [2, 0]),
    ("Ranking: 3\n\nExplanation: 1 and 2 are wrong.", [2]),
    ("Ranking: 3\n1. It is right.\n2. It is short.", [2]),
    ("Ranking: 10, 2", [1]),
    ("Ranking: 3.", [2]),
    ("Ranking: Response 1 (2nd), Response 2 (1st)", [0, 1]),
    ("Ranking: 1.\n2.\n3.", [0]),
    ("Ranking: -1", [0]),
    ("Ranking: 1, 2, 3, 4", [0, 1, 2, 3]),
    ('{"scores": [9, 7], "ranking": [3, 1]}', [2, 0]),
    ('{"ranking": [3, 1], "scores": [9, 7]}', [2, 0]),
    ("Ranking: Response #3, Response #1", [2, 0]),
    ("Ranking: 3 = 1 > 2", [2, 0, 1]),
    ("Ranking: 3, 1, 2\n\nRanking: 3, 1, 2", [2, 0, 1]),
    ("Ranking: **3**, **1**, **2**", [2, 0, 1]),
    ("Ranking: `3, 1`", [2, 0]),
    ("Ranking: Response 3 (Paris), Response 1 (London)", [2, 0]),
    ("Ranking: 3: Paris\n1: London", [2, 0]),
]
"""Responses that follow each other in a line."""

COLUMNS: list[tuple[str, list[int]]] = [
    ('{\n  "ranking": [\n    2,\n    1\n  ]\n}', [1, 0]),
    ("Ranking:\n3\n1\n2", [2, 0, 1]),
    ("Ranking:\nResponse 3\nResponse 1", [2, 0]),
    (
        "Ranking:\n- Response 3: right\n- Response 1: vague\n\nResponse 2 is wrong.",
        [2, 0],
    ),
    ("Ranking:\n* 3\n* 1", [2, 0]),
    ("Ranking:\n3. the clear one\n1. the vague one", [2, 0]),
    ("Ranking:\n3: Paris\n1: London", [2, 0]),
]
"""Responses that stand one a line."""

UNMARKED: list[tuple[str, list[int]]] = [
    ("2, 1, 3", [1, 0, 2]),
    ("Here are the top 3: 2, 1, 4", [1, 0, 3]),
    ("The best 3 are 4, 2 and 1", [3, 1, 0]),
    ("Response 3 is the best one.", [2]),
    ("1. Response 2 is best\n2. Response 1", [1, 0]),
    ("The best 2 are 3, 1", [2, 0]),
    ("Response 2, Response 4 and Response 1", [1, 3, 0]),
    ("2 = 1 > 3", [1, 0, 2]),
    ("2\uff0c1\uff0c3", [1, 0, 2]),
    ("1st place: Response 3\n2nd place: Response 1\n3rd place: Response 2", [2, 0, 1]),
    (
        "**1st place:** Response 3 — right and short\n"
        "**2nd place:** Response 1 — right, but long",
        [2, 0],
    ),
    (
        "| Rank | Response | Why |\n|:---:|---|---|\n"
        "| 1 | Response 3 | it has 2 reasons |\n| 2 | Response 1 | 1 error |\n\n"
        "That is all.",
        [2, 0],
    ),
    ("| Response | Rank |\n|---|---|\n| 1 | 2 |\n| 2 | 3 |\n| 3 | 1 |", [2, 0, 1]),
    ('[{"rank": 1, "response": 3}, {"rank": 2, "response": 1}]', [2, 0]),
    ('{"1st": "Response 3", "2nd": "Response 1"}', [2, 0]),
    ("Response 3 > Response 1", [2, 0]),
    ("[3, 1, 2]", [2, 0, 1]),
    ("```json\n[3, 1, 2]\n```", [2, 0, 1]),
    ("<ranking>3, 1, 2</ranking>", [2, 0, 1]),
    ("<ranking>\n3\n1\n2\n</ranking>", [2, 0, 1]),
    ("After weighing all of it, my ranking: 3, 1", [2, 0]),
    ("3\n1\n2", [2, 0, 1]),
    ("Best to worst: 3, 1, 2", [2, 0, 1]),
    ("The best response is Response 3.", [2]),
    ("Best: 3", [2]),
    ("Best: Response 3; worst: Response 1", [2]),
    ("Response 3 is clearly the best.", [2]),
    ("In order of quality: 3, 1, 2", [2, 0, 1]),
    ("3", [2]),
    ("Response 3", [2]),
    ("3, 1\n", [2, 0]),
    ("1 is vague.\n\n3, 1", [2, 0]),
    ("1. Response 3\n2. Response 1", [2, 0]),
    ("1st: Response 1\n2nd: Response 2", [0, 1]),
    ("1. Response 1: vague\n2. Response 2: right\n\n2, 1", [1, 0]),
    ("1) 3\n2) 1", [2, 0]),
    ("best first: 3, 1", [2, 0]),
    ("3, 1\n2, 1", [1, 0]),
    ("Based on this, the ranking is as follows:\n1. Response 3\n2. Response 1", [2, 0]),
    ("The ranking, best to worst, is:\n1. Response 3\n2. Response 1", [2, 0]),
    ("**Final Answer:** Ranking: 3, 1", [2, 0]),
    ("1. Response 3\n2. Response 1\n\nBoth are fine.", [2, 0]),
]
"""Orders that are all that a text, or its last line, says."""

UNREADABLE = [
    "Ranking: none",
    "They are all good.",
    "",
    "99999999999999999999",
    "- Response 4: right\n- Response 1: wrong",
    "| # | Response |\n|---|---|\n| 1 | 3 |\n| 2 | 1 |",
    "| Response | Score |\n|---|---|\n| 1 | 2 |\n| 2 | 3 |",
    "Ranking: 3, 1 - 2 is wrong",
    "The top two are 3 and 1",
    "Ranking:",
    "Ranking: ",
    "Ranking: none of them",
    "Ranking: 3 is better than 1",
    "Ranking: 1 is worse than 3",
    "Ranking: 3 beats 1",
    "Ranking: 1 < 3",
    "Ranking (worst to best): 1, 3",
    "Ranking, from worst to best: 1, 3",
    "Ranking: 1-3",
    "Ranking: 3 - 1 - 2",
    "Ranking: 30%, 20%",
    "Ranking: 3.5, 2.5",
    "Ranking: 9/10, 7/10",
    "Ranking:\nResponse 1: 7/10\nResponse 2: 9/10",
    "Ranking:\nResponse 1: 2nd\nResponse 2: 1st",
    "Ranking:\n1. Paris is right\n2. London is wrong",
    "Ranking: 1) 2) 3)",
    "Ranking:\n1. ...\n2. ...\n3. ...",
    "Ranking:\n2. Response 3\n1. Response 1",
    "Ranking:\n1. Response 3\n3. Response 1",
    "Ranking: 1. Response 3, Response 1",
    "Ranking: A > B > C",
    "Ranking: 1, 2\nOn reflection, no.\nRanking: neither",
    "1. Response 1: vague\n2. Response 2: right",
    "- Response 1: vague\n- Response 2: right",
    "Response 1 is worse than response 2.",
    "I compared 1, 2 and 3, and 2 convinced me more than 1.",
    "Accuracy ranking: 1, 2\nStyle ranking: 2, 1",
    "The best on style: 1\nThe best on facts: 2",
    "Response 2 is not the best.",
    "In 2024, 3 of 4 models",
    "Ranking: 99999",
    "Ranking: 0",
    "3, 1 or 1, 3",
    "Ranking: 3 or 1",
    "Ranking: 3 vs 1",
    "Ranking: not 1, but 3",
    "Ranking: 3, but 1 is close",
    "| Rank | Response |\n|---|---|\n| 1 | 3 |\n| 1 | 2 |",
    "Ranking: 1 \u2192 3, 2 \u2192 1",
    "Ranking: 3 > 1, 1 > 2",
    "Ranking:\nResponse 3 > Response 1\nResponse 2 > Response 3",
    "Best: 3\nSecond best: 1",
    "\n\n",
    "()",
    "$\\text{Ranking: } 3, 1$",
]
"""What would have to be guessed."""


@pytest.mark.parametrize(
    ("said", "order"),
    [*PLACES, *ROWS, *COLUMNS, *UNMARKED],
    ids=lambda value: ascii(value)[:60] if isinstance(value, str) else "",
)
def test_a_judges_order_is_read_as_it_was_meant(said: str, order: list[int]) -> None:
    """Whatever shape the judge's last lines have: best first, indices from 0."""
    assert ranking(said, 4) == order


@pytest.mark.parametrize("said", UNREADABLE, ids=lambda said: ascii(said)[:60])
def test_what_cannot_be_read_is_not_guessed(said: str) -> None:
    """Rank then keeps the first n, and the result says that it is degraded."""
    assert ranking(said, 4) == []


NAMES: list[Callable[[int], str]] = [
    str,
    "Response {}".format,
    "**Response {}**".format,
    "#{}".format,
]
"""Ways of naming a response."""

MARKS = [
    "Ranking: ",
    "**Final ranking:** ",
    "## Ranking\n\n",
    "My ranking is: ",
    "> Ranking:\n",
]

JOINS = [", ", " > ", "; ", ",", " then ", " and ", "\u3001"]

PLACED = ["{}. {}", "{}) {} is there", "#{}: {}", "Rank {}: {}", "- {}: {}"]
"""Lines of a list, given a place and a response."""

BEHIND = [
    "",
    "\n",
    ".\n",
    "\n\nThe others are worse.",
    "\n\nNote: they all cite sources.",
]


def orders() -> st.SearchStrategy[list[int]]:
    """Draw an order of some of up to nine responses, by their numbers."""
    return st.permutations(range(1, 10)).flatmap(
        lambda order: st.integers(1, 9).map(lambda length: list(order[:length]))
    )


def indices(order: list[int]) -> list[int]:
    """Turn numbers into indices."""
    return [number - 1 for number in order]


REASONS = st.sampled_from(
    [
        "",
        "Response 1 is vague, 2 is right.\n\n",
        "1. Response 1: fine\n2. Response 2: ok\n\n",
    ]
)


@given(
    orders(),
    REASONS,
    st.sampled_from(MARKS),
    st.sampled_from(NAMES),
    st.sampled_from(JOINS),
    st.sampled_from(BEHIND),
)
def test_every_row_is_read(
    order: list[int],
    reasons: str,
    mark: str,
    name: Callable[[int], str],
    join: str,
    behind: str,
) -> None:
    """Any order in any words, behind any reasons and in front of any remark."""
    said = reasons + mark + join.join(map(name, order)) + behind
    assert ranking(said, 9) == indices(order), said


@given(
    orders(),
    REASONS,
    st.sampled_from(MARKS),
    st.sampled_from(NAMES),
    st.sampled_from(PLACED),
    st.sampled_from(BEHIND),
)
def test_every_list_of_places_is_read(
    order: list[int],
    reasons: str,
    mark: str,
    name: Callable[[int], str],
    line: str,
    behind: str,
) -> None:
    """A place is never taken for a response, nor a response for a place."""
    lines = (line.format(place, name(n)) for place, n in enumerate(order, 1))
    said = reasons + mark + "\n".join(lines) + behind
    assert ranking(said, 9) == indices(order), said


@given(orders(), st.booleans(), st.randoms())
def test_every_table_is_read(order: list[int], places_first: bool, random: Any) -> None:
    """In whatever order its lines and its columns stand."""
    rows = [[str(place), f"Response {n}"] for place, n in enumerate(order, 1)]
    random.shuffle(rows)
    table = [["Rank", "Response"], ["---", "---"], *rows]
    lines = (row if places_first else row[::-1] for row in table)
    said = "\n".join(f"| {' | '.join(row)} | why |" for row in lines)
    assert ranking(said, 9) == indices(order), said


PIECES = st.sampled_from(
    [
        *'0123456789.,:;()[]|<>-*#`"/ \n',
        *("Ranking", "ranking:", "Response ", "best", " is ", "1st ", "rank ", "top "),
        *(
            "1. ",
            "2) ",
            "10",
            "\n- ",
            "| Rank | Response |\n",
            "\u00bd",
            "\ud800",
            "\u0663",
        ),
    ]
)


@given(st.lists(PIECES).map("".join) | st.text(), st.integers(0, 12))
@example("Ranking: \u0663, \u0661", 4)  # Arabic digits
def test_any_text_is_read_or_not_and_never_raises(text: str, count: int) -> None:
    """What is read names responses that there are, each once."""
    order = ranking(text, count)
    assert len(set(order)) == len(order)
    assert all(0 <= index < count for index in order)


HOSTILE = [
    *("Ranking:\n", "Ranking: ", "Ranking: 1, 2\n", "ranking of ", "the ", "best 3 "),
    *("0", "1 ", "1, ", "1)", "1. ", "1. Response 3, ", "1st: 3\n", "| 1 | 3 |\n"),
    *(
        "- ",
        "\n",
        " ",
        "(",
        "()",
        "((1)",
        "[",
        "[1,",
        "[[1,]",
        "<a>",
        "</a",
        "*",
        "```",
    ),
    *(
        "| Rank | Response |\n",
        "best is 1\n",
        "of ",
        "\uff0c",
        "\U0001f947",
        "response ",
    ),
]


@pytest.mark.parametrize("begins", ["", "Response 1. ", "Ranking: ", "Ranking: [", "("])
@pytest.mark.parametrize("size", [19_000, 10**6], ids=["all is read", "1 MB"])
@pytest.mark.parametrize("unit", HOSTILE, ids=ascii)
def test_reading_takes_no_time_and_no_memory_whatever_a_judge_writes(
    unit: str, size: int, begins: str
) -> None:
    """A judge that loops to its token limit holds up nobody."""
    text = begins + unit * (size // len(unit))
    started = time.monotonic()
    tracemalloc.start()
    try:
        ranking(text, 4)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 30
    assert most < 20 * 10**6


def test_an_order_of_thousands_is_read() -> None:
    """How much is read grows with the number of responses."""
    said = "Ranking: " + ", ".join(map(str, range(5000, 0, -1)))
    assert ranking(said, 5000) == list(range(4999, -1, -1))


def test_a_verdict_far_behind_long_reasons_is_read() -> None:
    """What stands in front of the last lines makes no difference, however long."""
    assert ranking("Response 1 is better than 2.\n" * 10**5 + "Ranking: 2, 1", 4) == [
        1,
        0,
    ]


def test_the_ranking_prompt_asks_for_the_line_that_is_read() -> None:
    """The example in the ranking prompt is one that the reader understands."""
    assert ranking(RANK, 3) == [2, 0, 1]
