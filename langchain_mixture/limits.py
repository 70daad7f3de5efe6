"""How long a call is waited for: its timeout, its step's quorum, the deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class OutOfTimeError(TimeoutError):
    """A call took longer than its timeout."""


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

    def __init__(self, quorum: int, grace: float) -> None:
        self.quorum = quorum
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
        >>> Limit(None, None, None).due() is None
        True
    """

    def __init__(
        self, timeout: float | None, ends: float | None, latch: Latch | None
    ) -> None:
        self._timeout = timeout
        self._ends = ends
        self._latch = latch
        self._sign = time.monotonic()

    def tick(self) -> None:
        """Take a sign of life, from which the timeout counts anew."""
        self._sign = time.monotonic()

    def _times(self) -> list[tuple[float, Exception]]:
        times: list[tuple[float, Exception]] = []
        if self._latch is not None and self._latch.closes_at is not None:
            why = f"not waited for: {self._latch.quorum} others had answered"
            times.append((self._latch.closes_at, GivenUpError(why)))
        if self._timeout is not None:
            why = f"no answer within {self._timeout:g} seconds"
            times.append((self._sign + self._timeout, OutOfTimeError(why)))
        if self._ends is not None:
            why = "not waited for: its share of the deadline was used up"
            times.append((self._ends, GivenUpError(why)))
        return times

    def due(self) -> float | None:
        """Say when the call is given up, on the monotonic clock."""
        return min((when for when, _ in self._times()), default=None)

    def left(self) -> float | None:
        """Say how many seconds are left until then, 0 or more."""
        due = self.due()
        return None if due is None else max(0.0, due - time.monotonic())

    def error(self) -> Exception:
        """Give the error of a call that is given up."""
        return min(self._times(), key=lambda pair: pair[0])[1]
