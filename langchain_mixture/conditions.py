"""Conditions: whether the responses so far are enough.

A condition is a function of the responses to a bool: any function is one. Those here
compare what a key reads of each response; one without a vote counts as a response and
votes for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_mixture.records import Response
from langchain_mixture.steps.base import Condition
from langchain_mixture.steps.checks import brief, check_fields
from langchain_mixture.steps.keys import Key, counted, exact, leader, votes

__all__ = ["Condition", "agreed", "decided", "lead"]


@dataclass(frozen=True, repr=False)
class agreed:  # noqa: N801  # it is read as a word: unless=agreed(2 / 3)
    """True where a share of the responses, and two at least, give the same answer.

    Example:
        >>> paris, rome = {"text": "Paris"}, {"text": "Rome"}
        >>> agreed()([paris, paris]), agreed()([paris, paris, rome])
        (True, False)
        >>> agreed(2 / 3)([paris, paris, rome]), agreed()([paris])
        (True, False)
    """

    share: float = 1.0
    """Of all responses; in (0, 1]."""
    key: Key = exact
    """From a text to what is compared; None = no vote."""

    def __post_init__(self) -> None:
        check_fields(self, "agreed")

    def __repr__(self) -> str:
        return brief(self)

    def __call__(self, responses: Sequence[Response]) -> bool:
        most = max(counted(votes(responses, self.key)).values(), default=0)
        # 2 of 3 are a share of 2 / 3, whatever floats make of it.
        return most >= max(2, self.share * len(responses) - 1e-9)


@dataclass(frozen=True, repr=False)
class decided:  # noqa: N801  # it is read as a word: unless=decided(of=4)
    """True where no answer can overtake the leader any more, so that asking is over.

    What is kept by counting is then what all `of` calls would have led to. Ties go to
    the answer that comes first in the list. A call that failed counts as one that may
    still be made: that is never wrong, but may ask one more than is needed.

    Example:
        >>> b, c = {"text": "B"}, {"text": "C"}
        >>> decided(of=4)([b, c]), decided(of=4)([b, b])
        (False, True)
    """

    of: int
    """How many calls are made in all; 1 or more."""
    key: Key = exact
    """From a text to what is compared; None = no vote."""

    def __post_init__(self) -> None:
        check_fields(self, "decided")

    def __repr__(self) -> str:
        return brief(self)

    def __call__(
        self, responses: Sequence[Response], pending: Sequence[int] = ()
    ) -> bool:
        """Tell whether the leader stands.

        Args:
            responses: Those that have arrived, in the order of the list.
            pending: Where answers arrive in another order than that of the list: the
                place in `responses` that each call under way would take (1 = behind
                the first response). An answer that comes in front of the leader wins a
                tie.
        """
        given = votes(responses, self.key)
        counts = counted(given)
        left = max(self.of - len(responses), len(pending))
        if not counts:
            return left == 0
        first = leader(counts)
        place, most = given.index(first), counts.pop(first)
        in_front = any(taken <= place for taken in pending)
        rivals = [
            (has, in_front or given.index(rival) < place)
            for rival, has in counts.items()
        ]
        return all(
            has + left < most or (has + left == most and not wins_ties)
            for has, wins_ties in [*rivals, (0, in_front)]  # one not given yet, too
        )


@dataclass(frozen=True, repr=False)
class lead:  # noqa: N801  # it is read as a word: until(lead(3), …)
    """True where one answer has k votes more than any other.

    For samples of one model: on date understanding (189 questions, chains of thought),
    stopping at a lead of three made 4.9 calls of ten, and answers were as often right.

    Example:
        >>> b, c = {"text": "B"}, {"text": "C"}
        >>> lead(2)([b, b]), lead(2)([b, b, c])
        (True, False)
    """

    k: int
    """1 or more."""
    key: Key = exact
    """From a text to what is compared; None = no vote."""

    def __post_init__(self) -> None:
        check_fields(self, "lead")

    def __repr__(self) -> str:
        return brief(self)

    def __call__(self, responses: Sequence[Response]) -> bool:
        counts = counted(votes(responses, self.key)).values()
        most, second = [*sorted(counts, reverse=True), 0, 0][:2]
        return most - second >= self.k
