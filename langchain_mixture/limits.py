"""What a run may take: its options, and its budget of calls and tokens."""

from __future__ import annotations

from collections.abc import Sequence
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
