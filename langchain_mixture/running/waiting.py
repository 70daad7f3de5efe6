"""How long a call is waited for, and how many calls are made at once."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from langchain_mixture.errors import counted


class GivenUpError(Exception):
    """A call was not waited for any longer: the quorum was met, or time is up."""


class StoppedError(BaseException):
    """A callback ends the call that it listens to.

    It is no `Exception`: core would log it as a fault of the callback, and a retry or a
    fallback around the model would ask once more (langchain-core 1.8.3).
    """


class Quorum:
    """How many answers of one step are enough, shared by the calls of the step.

    Args:
        needed: The number of answers; None = all calls are waited for.
        grace: Seconds that the other calls still have once the quorum is met.
        have: The answers that a resumed step has already; where they are enough, no
            call begins.

    Example:
        >>> quorum = Quorum(1, grace=0.0)
        >>> with Wait(None, None, quorum).held(lambda: None) as wait:
        ...     wait.has_answer = True
        >>> quorum.is_closed()
        True
    """

    def __init__(self, needed: int | None, grace: float, have: int = 0) -> None:
        is_met = needed is not None and have >= needed
        self.needed = needed
        self.closes_at = time.monotonic() if is_met else None
        """When the other calls are given up, on the monotonic clock; None = not yet."""
        self._grace = grace
        self._answers = have
        self._waits: set[Wait] = set()
        self._lock = threading.Lock()

    def is_closed(self) -> bool:
        """Whether a call that has not begun need not begin."""
        return self.closes_at is not None and time.monotonic() >= self.closes_at

    @property
    def met(self) -> str:
        """What a call is told that it does not need: `2 others had answered`."""
        return f"{counted(self.needed or 0, 'other')} had answered"

    def enter(self, wait: Wait) -> None:
        """Count a call among those that the quorum can end."""
        with self._lock:
            self._waits.add(wait)

    def leave(self, wait: Wait) -> None:
        """Take a call out; where its answer meets the quorum, wake the others."""
        with self._lock:
            self._waits.discard(wait)
            self._answers += wait.has_answer
            met = wait.has_answer and self._answers == self.needed
            if met:
                self.closes_at = time.monotonic() + self._grace
            others = list(self._waits) if met else []
        for other in others:
            other.wake()


class Wait:
    """How long one call is waited for. A call that is given up may go on, unheard.

    Args:
        timeout: Seconds without a sign of life; None = no limit.
        ends: When the call's share of the deadline is used up, on the monotonic clock;
            None = no limit.
        quorum: The quorum of the call's step.

    Example:
        >>> Wait(None, None, Quorum(None, 0.0)).left() is None
        True
    """

    def __init__(
        self, timeout: float | None, ends: float | None, quorum: Quorum
    ) -> None:
        self.is_over = False
        """Whether nobody waits any longer; what the call still says is not heard."""
        self.has_answer = False
        self.wake: Callable[[], None] = lambda: None
        """Called when the limit has changed."""
        self.on_end: list[Callable[[], None]] = []
        """Called when nobody waits any longer: what runs inside is left, too."""
        self._timeout = timeout
        self._ends = ends
        self._quorum = quorum
        self._is_cancelled = False
        self._sign = time.monotonic()

    @contextmanager
    def held(self, wake: Callable[[], None]) -> Iterator[Wait]:
        """Wait for the length of a block; `wake` is called when the limit changes."""
        self.wake = wake
        self._quorum.enter(self)
        try:
            yield self
        finally:
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
        due = min((when for when, _ in self._limits()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def error(self) -> BaseException:
        """The error of a call that is given up: that of its nearest limit."""
        return min(self._limits(), key=lambda limit: limit[0])[1]

    def _limits(self) -> list[tuple[float, BaseException]]:
        limits: list[tuple[float, BaseException]] = []
        if self._is_cancelled:
            limits.append((0.0, asyncio.CancelledError()))
        if self._quorum.closes_at is not None:
            why = f"not waited for: {self._quorum.met}"
            limits.append((self._quorum.closes_at, GivenUpError(why)))
        if self._timeout is not None:
            why = f"no answer within {counted(self._timeout, 'second')}"
            limits.append((self._sign + self._timeout, TimeoutError(why)))
        if self._ends is not None:
            why = "not waited for: its share of the deadline was used up"
            limits.append((self._ends, GivenUpError(why)))
        return limits


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
