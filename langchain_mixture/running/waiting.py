"""How long a call is waited for, and how many calls are made at once."""

from __future__ import annotations

import asyncio
import heapq
import inspect
import threading
import time
from bisect import bisect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

from langchain_mixture.errors import counted
from langchain_mixture.records import Reply, Response, answered
from langchain_mixture.steps.base import Condition
from langchain_mixture.steps.program import name_of_condition


class GivenUpError(Exception):
    """A call was not waited for any longer: the quorum was met, or time is up."""


class StoppedError(BaseException):
    """A callback ends the call that it listens to.

    It is no `Exception`: core would log it as a fault of the callback, and a retry or a
    fallback around the model would ask once more (langchain-core 1.8.3).
    """


@dataclass(frozen=True)
class Question:
    """A condition, and what it is asked about."""

    condition: Condition
    responses: Sequence[Response]
    pending: Sequence[int] | None = None
    """The places that open calls would take; None = the step is not a quorum's."""

    def ask(self) -> bool | Awaitable[bool]:
        """Return the condition's answer, which may have to be awaited."""
        if self.pending is None or not _takes_pending(self.condition):
            return self.condition(self.responses)
        return self.condition(self.responses, pending=self.pending)


def _takes_pending(condition: Condition) -> bool:
    try:
        return "pending" in inspect.signature(condition).parameters
    except ValueError:  # some built-in functions have no readable signature
        return False


class Quorum:
    """Which answers of one step are enough, shared by the calls of the step.

    Args:
        needed: The number of answers, or a condition; None = all calls are waited for.
        grace: Seconds that the other calls still have once the quorum is met.
        calls: The positions of the step's calls.
        before: The responses that stand in front of the answers.

    Example:
        >>> quorum = Quorum(1, grace=0.0)
        >>> quorum.take({"index": 0, "error": None})
        >>> quorum.is_closed()
        True
    """

    def __init__(
        self,
        needed: int | Condition | None,
        grace: float,
        calls: Iterable[int] = (),
        before: Sequence[Response] = (),
    ) -> None:
        self.needed = needed
        self.closes_at: float | None = None
        """When the other calls are given up, on the monotonic clock; None = not yet."""
        self.error: Exception | None = None
        """The error that the condition raised; it is not asked again."""
        self._about_saved: Question | None = None
        self._grace = grace
        self._open = set(calls)
        self._before = before
        self._answers: dict[int, Reply] = {}
        self._waits: set[Wait] = set()
        self._lock = threading.Lock()

    def is_closed(self) -> bool:
        """Whether a call that has not begun need not begin."""
        return self.closes_at is not None and time.monotonic() >= self.closes_at

    @property
    def is_met(self) -> bool:
        """Whether the answers so far are enough."""
        return self.closes_at is not None

    @property
    def met(self) -> str:
        """What a call is told that it does not need: `2 others had answered`."""
        if callable(self.needed):
            return f"{name_of_condition(self.needed)} was true of the answers before it"
        return f"{counted(self.needed or 0, 'other')} had answered"

    @property
    def name(self) -> str:
        """How reasons call it: `quorum of 2`, or by its condition."""
        if callable(self.needed):
            return f"quorum {name_of_condition(self.needed)}"
        return f"quorum of {self.needed}"

    def expect(self, calls: Iterable[int]) -> None:
        """Take these calls for all that the step makes."""
        with self._lock:
            self._open.intersection_update(calls)

    def enter(self, wait: Wait) -> None:
        """Count a call among those that the quorum can end."""
        with self._lock:
            self._waits.add(wait)

    def leave(self, wait: Wait) -> None:
        """Take a call out of those that the quorum can end."""
        with self._lock:
            self._waits.discard(wait)

    def take(self, reply: Reply, *, is_last: bool = True) -> Question | None:
        """Count the reply to a call, which may meet the quorum.

        Args:
            reply: The reply.
            is_last: Whether the call is over, and no fallback is left for it.

        Returns:
            The question to be put to the condition, outside of any lock; its answer
            goes to `hear`. None if there is nothing to ask.
        """
        index = reply["index"]
        with self._lock:
            if is_last:
                self._open.discard(index)
            if reply["error"] is not None:
                return None
            self._answers[index] = reply
            if callable(self.needed):
                return None if self.is_met or self.error else self._question()
            met = len(self._answers) == self.needed
        if met:
            self._close(self._grace)
        return None

    def take_saved(self, replies: Iterable[Reply]) -> None:
        """Count replies that an earlier run had saved.

        Where they meet the quorum, no call begins, whatever the grace.
        """
        for reply in replies:
            self._about_saved = self.take(reply) or self._about_saved
        if self.is_met:
            self.closes_at = time.monotonic()

    @property
    def about_saved(self) -> Question | None:
        """The question about saved replies, which a call asks before it begins."""
        return None if self.is_met or self.error else self._about_saved

    def hear(self, answer: bool | Exception, *, of_saved: bool = False) -> None:
        """Take a condition's answer, or the error that it raised.

        Args:
            answer: The answer, or the error.
            of_saved: Whether it was asked about saved replies, which leave no grace.
        """
        if isinstance(answer, Exception):
            self.error = self.error or answer
        elif answer:
            self._close(0.0 if of_saved else self._grace)

    def _question(self) -> Question:
        have = sorted(self._answers)
        start = len(self._before)
        responses = answered([self._answers[index] for index in have])
        places = [start + bisect(have, index) for index in sorted(self._open)]
        return Question(
            cast("Condition", self.needed), [*self._before, *responses], places
        )

    def _close(self, grace: float) -> None:
        with self._lock:
            if self.closes_at is not None:
                return
            self.closes_at = time.monotonic() + grace
            others = list(self._waits)
        for other in others:
            other.wake()


class Wait:
    """How long one call is waited for. A call that is given up may go on, unheard.

    Args:
        timeout: Seconds without a sign of life; None = no limit.
        ends: When the call's share of the deadline is used up, on the monotonic clock;
            None = no limit.
        quorum: The quorum of the call's step.
        call: The id of the call, such as `1_propose/0`.

    Example:
        >>> Wait(None, None, Quorum(None, 0.0)).left() is None
        True
    """

    def __init__(
        self,
        timeout: float | None,
        ends: float | None,
        quorum: Quorum,
        call: str = "",
    ) -> None:
        self.call = call
        """The id of the call."""
        self.is_over = False
        """Whether nobody waits any longer; what the call still says is not heard."""
        self.wake: Callable[[], None] = lambda: None
        """Called when the limit has changed."""
        self.on_end: list[Callable[[], None]] = []
        """Called when nobody waits any longer: what runs inside is left, too."""
        self._timeout = timeout
        self._ends = ends
        self._quorum = quorum
        self._is_cancelled = False
        self._sign = time.monotonic()

    def begin(self, wake: Callable[[], None]) -> None:
        """Begin to wait; `wake` is called when the limit changes."""
        self.wake = wake
        self._quorum.enter(self)

    def end(self) -> None:
        """Wait no longer."""
        self.is_over = True
        self._quorum.leave(self)
        for end in self.on_end:
            end()

    def sign(self) -> None:
        """Take a sign of life, from which the timeout counts anew."""
        self._sign = time.monotonic()

    def cancel(self) -> None:
        """Give the call up, as its run is."""
        self._is_cancelled = True
        self.wake()

    def left(self) -> float | None:
        """The seconds until the call is given up, 0 or more; None = no limit."""
        due, _ = self._limit()
        return None if due is None else max(0.0, due - time.monotonic())

    def error(self) -> BaseException:
        """The error of a call that is given up: that of its nearest limit."""
        return self._limit()[1]()

    def _limit(self) -> tuple[float | None, Callable[[], BaseException]]:
        """Return when the call is given up, and what makes the error for it."""
        if self._is_cancelled:
            return 0.0, asyncio.CancelledError
        due, error = self._quorum.closes_at, self._not_needed
        if self._timeout is not None:
            ends = self._sign + self._timeout
            if due is None or ends < due:
                due, error = ends, self._too_late
        if self._ends is not None and (due is None or self._ends < due):
            due, error = self._ends, self._out_of_time
        return due, error

    def _not_needed(self) -> BaseException:
        return GivenUpError(f"not waited for: {self._quorum.met}")

    def _too_late(self) -> BaseException:
        return TimeoutError(f"no answer within {counted(self._timeout or 0, 'second')}")

    def _out_of_time(self) -> BaseException:
        return GivenUpError("not waited for: its share of the deadline was used up")


WAIT: ContextVar[Wait | None] = ContextVar("mixture_wait", default=None)
"""The wait for the call that this code answers; None outside of any call."""


class Gate:
    """Lets a number of calls of one run pass at once, those of lowest index first.

    Args:
        limit: How many.

    Example:
        >>> with Gate(1).passed(0):
        ...     print("alone")
        alone
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[tuple[int, int, threading.Event]] = []
        self._arrivals = 0
        self._lock = threading.Lock()

    @contextmanager
    def passed(self, index: int) -> Iterator[None]:
        """Wait until a call may be made, and hold its place for a block."""
        turn = threading.Event()
        with self._lock:
            self._arrivals += 1
            if self._free:
                self._free -= 1
                turn.set()
            else:
                heapq.heappush(self._waiting, (index, self._arrivals, turn))
        turn.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    heapq.heappop(self._waiting)[2].set()
                else:
                    self._free += 1
