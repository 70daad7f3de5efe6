"""What a run may take: the options of all three faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from langchain_mixture.steps.base import Timeout
from langchain_mixture.steps.checks import check_fields

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
