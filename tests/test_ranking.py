"""How a judge's order is read."""

import time

import pytest

from langchain_mixture.steps.prompts import RANK
from langchain_mixture.steps.ranking import ranking


@pytest.mark.parametrize(
    ("said", "order"),
    [
        ("2, 1, 3", [1, 0, 2]),
        ("Here are the top 3: 2, 1, 4", [1, 0, 3]),
        ("The best 3 are 4, 2 and 1", [3, 1, 0]),
        ("I compared 1, 2, 3.\nRanking: 3, 1", [2, 0]),
        ("Ranking: 1, 2\nOn reflection:\n**Ranking:** 4 > 2", [3, 1]),
        ("ranking: 2,2,9,0,1", [1, 0]),
        ("Ranking (best first): 3, 2", [2, 1]),
        ("Response 3 is the best one.", [2]),
        ("Ranking: none", []),
        ("They are all good.", []),
        ("", []),
        ("99999999999999999999", []),
        ("Response 1 is vague.\n\nFinal Ranking: Response 2, Response 1", [1, 0]),
        ("1 is vague, 2 is right.\n**Final Ranking:** [2] > [1]", [1, 0]),
        ("I compared 1, 2 and 3.\nThe final ranking is: 2", [1]),
        ("Final ranking: 2, 1\nNote: responses 1, 3 share an error.", [1, 0]),
        ("Ranking: 2, 1\n\nRanking rationale: 1 is less complete", [1, 0]),
        ("Ranking:\n1. Response 3\n2. Response 1", [2, 0]),
        ("Ranking:\n\n3 > 1\nas 1 is short", [2, 0]),
        ("1. Response 2 is best\n2. Response 1", [1, 0]),
        ("- Response 4: right\n- Response 1: wrong", [3, 0]),
        ("Ranking: 3 (better than 1), 2", [2, 1]),
        ("Ranking:\n1: 3\n2: 1\n3: 2", [2, 0, 1]),
        ("Ranking:\n1st: Response 3\n2nd: Response 1", [2, 0]),
        ("Ranking: 1) Response 3, 2) Response 1", [2, 0]),
        ("Final ranking: 2) 1) 3)", [1, 0, 2]),
        ("Ranking: 2, 1) 3", [1, 0, 2]),
        ("Ranking: top 2: 3, 1", [2, 0]),
        ("The best 2 are 3, 1", [2, 0]),
        ("### Ranking\n2 > 1", [1, 0]),
        ("Ranking of the best 3 responses: #2, #1, and #4", [1, 0, 3]),
        ('{"ranking": [2, 1], "reason": "clear"}', [1, 0]),
        ('{\n  "ranking": [\n    2,\n    1\n  ]\n}', [1, 0]),
        ("Response 2, Response 4 and Response 1", [1, 3, 0]),
        ("2 = 1 > 3", [1, 0, 2]),
        ("2，1，3", [1, 0, 2]),  # noqa: RUF001  # as a Chinese model writes
    ],
)
def test_a_judges_order_is_read_from_its_marked_line_else_its_list_of_numbers(
    said: str, order: list[int]
) -> None:
    """A judge's order is read from its marked line, else from its numbers."""
    assert ranking(said, 4) == order


@pytest.mark.parametrize(
    "text",
    ["0" * 10**6, "- " * 10**6, "\n" * 10**6, "(" * 10**6, "1, " * 10**5, "1 " * 10**6],
    ids=lambda text: repr(text[:3]),
)
def test_what_a_judge_writes_without_end_is_read_in_no_time(text: str) -> None:
    """A judge that loops to its token limit holds up nobody: reading is linear."""
    started = time.monotonic()
    ranking(f"Response 1. {text}", 4)
    assert time.monotonic() - started < 30


def test_the_ranking_prompt_asks_for_the_line_that_is_read() -> None:
    """The example in the ranking prompt is one that the reader understands."""
    assert ranking(RANK, 3) == [2, 0, 1]
