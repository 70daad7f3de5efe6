"""How long and how much: options, deadline, quorum, budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from langchain_mixture.agents import Member
from langchain_mixture.records import Call, LLMCall, estimated
from langchain_mixture.steps import Timeout, check_fields

OnFailure: TypeAlias = Literal["raise", "keep"]
"""What a step does whose every call failed: raise, or keep the responses it had."""


@dataclass(frozen=True)
class Options:
    """Failure, time and cost of one run of a mixture.

    Raises:
        InvalidMixtureError: A value is not allowed; the message says what is.

    Example:
        >>> Options(deadline=-1)
        Traceback (most recent call last):
            ...
        langchain_mixture.errors.InvalidMixtureError: mixture: deadline is -1; \
allowed: None or seconds > 0.
    """

    on_failure: OnFailure = "raise"
    """Where every call of a step failed: raise, or keep the responses it had."""
    timeout: Timeout = "default"
    """Seconds per call; between two chunks where the answer streams."""
    deadline: float | None = None
    """Seconds for all of it, shared out among the steps that ask."""
    max_calls: int | None = None
    """The most calls that are made."""
    max_total_tokens: int | None = None
    """The most tokens that are read and written, by estimate before each call."""
    stream_proposals: bool = False
    """Whether a message stream has the tokens of calls that are not the answer."""

    def __post_init__(self) -> None:
        check_fields(self, "mixture")

    @property
    def stops(self) -> bool:
        """Whether a run may have to end with the responses that are there."""
        caps = (self.deadline, self.max_calls, self.max_total_tokens)
        return self.on_failure == "keep" or any(cap is not None for cap in caps)


class GivenUpError(Exception):
    """A call was not waited for any longer: the quorum was met, or time is up."""


class Latch:
    """Lets the calls of one step know when enough of them have answered.

    Example:
        >>> latch = Latch(quorum=1, grace=0.0)
        >>> latch.enter(lambda: None)
        >>> latch.leave(lambda: None, answered=True)
        >>> latch.is_closed()
        True
    """

    def __init__(self, quorum: int | None, grace: float) -> None:
        self.quorum = quorum
        """None = it never closes."""
        self.closes_at: float | None = None
        """When the calls that are left are given up, on the monotonic clock."""
        self._grace = grace
        self._answered = 0
        self._wakes: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    def is_closed(self) -> bool:
        """Tell whether a call that has not begun need not begin."""
        return self.closes_at is not None and time.monotonic() >= self.closes_at

    def enter(self, wake: Callable[[], None]) -> None:
        """Join with a call; `wake` is called when its limit has changed."""
        with self._lock:
            self._wakes.add(wake)

    def leave(self, wake: Callable[[], None], *, answered: bool) -> None:
        """Leave with a call, and wake the others where it met the quorum."""
        with self._lock:
            self._wakes.discard(wake)
            self._answered += answered
            met = answered and self._answered == self.quorum
            if met:
                self.closes_at = time.monotonic() + self._grace
            wakes = list(self._wakes) if met else []
        for other in wakes:
            other()


class Limit:
    """When a call is given up, and why.

    Args:
        timeout: Seconds without a sign of life; None = no limit.
        ends: When the call's share of the deadline is used up, on the monotonic clock.
        latch: The quorum of the call's step.

    Example:
        >>> Limit(None, None, Latch(None, 0.0)).left() is None
        True
    """

    def __init__(self, timeout: float | None, ends: float | None, latch: Latch) -> None:
        self._timeout = timeout
        self._ends = ends
        self._latch = latch
        self._sign = time.monotonic()

    def tick(self) -> None:
        """Take a sign of life, from which the timeout counts anew."""
        self._sign = time.monotonic()

    def _times(self) -> list[tuple[float, Exception]]:
        times: list[tuple[float, Exception]] = []
        if self._latch.closes_at is not None:
            why = f"not waited for: {self._latch.quorum} others had answered"
            times.append((self._latch.closes_at, GivenUpError(why)))
        if self._timeout is not None:
            why = f"no answer within {self._timeout:g} seconds"
            times.append((self._sign + self._timeout, TimeoutError(why)))
        if self._ends is not None:
            why = "not waited for: its share of the deadline was used up"
            times.append((self._ends, GivenUpError(why)))
        return times

    def left(self) -> float | None:
        """Say how many seconds are left until the call is given up, 0 or more."""
        due = min((when for when, _ in self._times()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def error(self) -> Exception:
        """Give the error of a call that is given up."""
        return min(self._times(), key=lambda pair: pair[0])[1]


@dataclass
class Budget:
    """What has been spent, and what may be."""

    options: Options
    calls: int
    tokens: int

    @classmethod
    def of(cls, options: Options, made: Sequence[LLMCall]) -> Budget:
        """Begin with what the calls that were made have spent."""
        tokens = sum(
            call["in_tokens"] + call["out_tokens"] + call.get("estimated_tokens", 0)
            for call in made
        )
        return cls(options, len(made), tokens)

    def spend(self, call: Call, member: Member) -> str | None:
        """Take a call off the budget, or say why it must not be made.

        Tokens are an estimate: about four characters a token to read, and as many to
        write as the step's `max_tokens` allows, or none where it says nothing.
        """
        most = self.options.max_calls
        if most is not None and self.calls >= most:
            return f"not asked: max_calls={most} was reached"
        self.calls += 1
        limit = self.options.max_total_tokens
        if limit is not None:
            estimate = estimated(call["messages"])
            estimate += member.arguments.get("max_tokens", 0)
            if self.tokens + estimate > limit:
                self.calls -= 1
                return (
                    f"not asked: {self.tokens} tokens had been used and it would use "
                    f"about {estimate}, past {limit} (max_total_tokens)"
                )
            self.tokens += estimate
        return None
