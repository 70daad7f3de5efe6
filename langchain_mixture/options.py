"""The options of a run, shared by `create_mixture`, `ChatMixture` and `run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from langchain_mixture.prices import LISTED, Prices, check_prices
from langchain_mixture.steps.base import Timeout
from langchain_mixture.steps.checks import check_fields

OnFailure: TypeAlias = Literal["raise", "keep"]
"""What happens if all calls of a step fail: "keep" goes on with its input."""


@dataclass(frozen=True)
class Options:
    """The rules of one run for failure, time and cost.

    Raises:
        InvalidMixtureError: A value is not allowed; the message names what is.

    Example:
        >>> Options(deadline=-1)
        Traceback (most recent call last):
            ...
        langchain_mixture.errors.InvalidMixtureError: mixture: deadline is -1; \
allowed: None or seconds > 0.
    """

    on_failure: OnFailure = "raise"
    """If all calls of a step fail: raise, or keep the responses it was given."""
    timeout: Timeout = "default"
    """Seconds per call, or between two chunks of a streamed answer."""
    deadline: float | None = None
    """Seconds for the whole run, shared out among the steps that make calls."""
    max_calls: int | None = None
    """The maximum number of calls."""
    max_total_tokens: int | None = None
    """The maximum of tokens read and written, estimated before each call."""
    max_cost: float | None = None
    """The maximum of US dollars, estimated before each call."""
    prices: Prices | None = None
    """What tokens cost; given, the result has `cost`."""
    stream_proposals: bool = False
    """Whether a message stream also delivers the tokens of proposals."""

    def __post_init__(self) -> None:
        check_fields(self, "mixture")
        check_prices(self.priced_by)

    @property
    def priced_by(self) -> Prices | None:
        """The prices in use: those given, or those of the package for `max_cost`."""
        if self.prices is None and self.max_cost is not None:
            return LISTED
        return self.prices

    @property
    def is_limited(self) -> bool:
        """Whether calls, tokens or dollars have a limit."""
        caps = (self.max_calls, self.max_total_tokens, self.max_cost)
        return any(cap is not None for cap in caps)

    @property
    def stops(self) -> bool:
        """Whether a step without an answer may pass its input on instead of failing."""
        # A limit means "answer with what there is by then"; only without one may a
        # failed step end the run.
        stops = self.deadline is not None or self.is_limited
        return self.on_failure == "keep" or stops
