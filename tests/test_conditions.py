"""Conditions: when the responses so far are enough."""

import itertools
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from langchain_mixture import InvalidMixtureError, Response, letter
from langchain_mixture.conditions import Condition, agreed, decided, lead
from tests.recorded import recorded
from tests.test_steps import response

OPEN, NONE = "?", ""
"""A call under way, and a response without a vote."""


def said(*texts: str) -> list[Response]:
    """Make a response of each text."""
    return [response(number, text) for number, text in enumerate(texts)]


def vote(text: str) -> str | None:
    """Read a test's response: "answer 2" and the like have no vote."""
    return text if len(text) == 1 else None


@pytest.mark.parametrize(
    ("condition", "texts", "holds"),
    [
        (agreed(), "", False),
        (agreed(), "A", False),
        (agreed(), "AA", True),
        (agreed(), "AAB", False),
        (agreed(2 / 3), "AAB", True),
        (agreed(0.7), "AAB", False),
        (agreed(1 / 3), "ABC", False),
        (agreed(0.5, vote), "AA", True),
        (agreed(1.0, vote), ["A", "A", "none"], False),
        (agreed(2 / 3, vote), ["A", "A", "none"], True),
        (agreed(0.5, vote), ["none", "none"], False),
        (lead(2), "", False),
        (lead(2), "A", False),
        (lead(1), "A", True),
        (lead(2), "AA", True),
        (lead(2), "AAB", False),
        (lead(2), "ABAA", True),
        (lead(1, vote), ["none", "none"], False),
        (decided(of=1), "", False),
        (decided(of=1), "A", True),
        (decided(of=2), "A", True),
        (decided(of=3), "A", False),
        (decided(of=4), "AA", True),
        (decided(of=4), "AB", False),
        (decided(of=4), "ABB", False),
        (decided(of=4), "BAB", True),
        (decided(of=10), "AAAA", False),
        (decided(of=10), "AAAAA", True),
        (decided(of=2), "ABC", True),
        (decided(of=2, key=vote), ["none", "none"], True),
        (decided(of=3, key=vote), ["none", "none"], False),
    ],
    ids=str,
)
def test_a_condition_holds_or_not(
    condition: Condition, texts: Sequence[str], holds: bool
) -> None:
    """Votes are compared by the key; a response without one counts, for nobody."""
    assert condition(said(*texts)) is holds


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: agreed(0), "agreed: share is 0; allowed: a share in"),
        (lambda: agreed(1.5), "agreed: share is 1.5"),
        (lambda: agreed(key="letter"), "agreed: key is 'letter'; allowed: a function"),  # type: ignore[arg-type]
        (lambda: decided(of=0), "decided: of is 0"),
        (lambda: decided(of=None), "decided: of is None"),  # type: ignore[arg-type]
        (lambda: lead(0), "lead: k is 0"),
        (lambda: lead(2.5), "lead: k is 2.5"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_condition_that_makes_no_sense_is_an_error(
    make: Callable[[], Any], culprit: str
) -> None:
    """A wrong argument fails where it is written, with the culprit and the value."""
    with pytest.raises(InvalidMixtureError, match="allowed") as raised:
        make()
    assert culprit in str(raised.value)


def test_conditions_are_values() -> None:
    """Conditions are compared, hashed and pickled, as the steps are that hold them."""
    for condition in (agreed(0.5), decided(of=4, key=letter), lead(3)):
        assert pickle.loads(pickle.dumps(condition)) == condition
        assert hash(condition)


@cache
def winners(state: tuple[str, ...]) -> frozenset[str]:
    """Give every answer that can still win, by trying all that may be said."""
    if OPEN not in state:
        given = [text for text in state if text != NONE]
        return frozenset([max(given, key=given.count)] if given else [NONE])
    place = state.index(OPEN)
    ends = [NONE, *"ABCDE"[: len(state)]]
    return frozenset().union(
        *(winners((*state[:place], text, *state[place + 1 :])) for text in ends)
    )


def arrived(state: Sequence[str]) -> tuple[list[Response], list[int]]:
    """Split a state into the responses and the places of the calls under way."""
    responses: list[Response] = []
    pending: list[int] = []
    for number, text in enumerate(state):
        if text == OPEN:
            pending.append(len(responses))
        else:
            responses.append(response(number, text or "none"))
    return responses, pending


@pytest.mark.parametrize("calls", [3, 4, 5])
def test_decided_is_right_in_every_state_in_which_calls_can_be(calls: int) -> None:
    """It holds if and only if every outcome of the open calls has the same winner.

    The states are all: each call open, without a vote, or with one of as many answers
    as there are calls, whatever the order in which they arrived.
    """
    condition = decided(of=calls, key=vote)
    for state in itertools.product([OPEN, NONE, *"ABCDE"[:calls]], repeat=calls):
        responses, pending = arrived(state)
        assert condition(responses, pending) is (len(winners(state)) == 1), state


# -- Real answers --------------------------------------------------------------------

FOUR = (
    "gemini-1.5-pro-002",
    "gemini-1.5-flash-002",
    "Meta-Llama-3_1-70B-Instruct",
    "DeepSeek-Coder-V2",
)
"""The best four, best first."""


def plurality(texts: Sequence[str]) -> str:
    """Count by hand: most votes, ties to the first."""
    given = [text for text in texts if text != NONE]
    return max(given, key=given.count) if given else NONE


@pytest.mark.parametrize(
    ("waves", "calls"), [((2, 1, 1), 2.55), ((2, 2), 2.65)], ids=str
)
def test_stopped_when_decided_a_panel_gives_the_full_votes_answer_for_fewer_calls(
    waves: Sequence[int], calls: float
) -> None:
    """On 5,000 questions not one answer changes."""
    condition = decided(of=4, key=vote)
    rows = recorded("mmlu_pro_letters_dev.csv.gz")
    asked = 0
    for row in rows:
        texts = [row[model] for model in FOUR]
        for count in itertools.accumulate(waves):
            if condition(arrived(texts[:count])[0]):
                break
        asked += count
        assert plurality(texts[:count]) == plurality(texts), row["id"]
    assert asked / len(rows) <= calls


def test_decided_as_a_quorum_gives_the_full_votes_answer_in_any_order() -> None:
    """On 5,000 questions, answers arriving in random order, no answer changes."""
    condition = decided(of=4, key=vote)
    draw = random.Random(1)
    for row in recorded("mmlu_pro_letters_dev.csv.gz"):
        texts = [row[model] for model in FOUR]
        state = [OPEN] * 4
        for place in draw.sample(range(4), 4):
            state[place] = texts[place]
            if condition(*arrived(state)):
                break
        have = [text for text in state if text != OPEN]
        assert plurality(have) == plurality(texts), row["id"]


def test_without_the_calls_under_way_some_answers_would_change() -> None:
    """What is under way in front of the leader matters: ties are won by it."""
    condition = decided(of=4, key=vote)
    assert condition(said("A", "A")) is True
    assert condition(said("A", "A"), pending=[0, 2]) is False
    assert condition(said("A", "A"), pending=[2, 2]) is True


def date(text: str) -> str | None:
    """Read the last date of a text; a key of a user's."""
    found = re.findall(r"\d\d/\d\d/\d{4}", text)
    return found[-1] if found else None


def test_a_lead_of_three_costs_half_of_ten_samples_and_is_as_often_right() -> None:
    """On date understanding: 4.9 calls a question, and within half a point of ten."""
    questions = recorded("samples_date_dev.jsonl.gz")
    condition = lead(3, key=date)
    asked = one = 0.0
    right = Counter[str]()
    for question in questions:
        replies = question["replies"]
        texts = [reply["text"] for reply in replies]
        enough = (n for n in range(1, 11) if condition(said(*texts[:n])))
        count = next(enough, len(texts))
        answers = [date(text) or NONE for text in texts]
        marks = {date(reply["text"]): reply["right"] for reply in reversed(replies)}
        asked += count / len(questions)
        one += sum(reply["right"] for reply in replies) / len(replies)
        right["stopped"] += marks.get(plurality(answers[:count]), False)
        right["ten"] += marks.get(plurality(answers), False)
    assert asked <= 5.3
    assert (right["stopped"] - one) / len(questions) >= 0.068
    assert (right["ten"] - one) / len(questions) >= 0.07
