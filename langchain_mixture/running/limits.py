"""The budget of a run: its maximum of calls and of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.errors import counted
from langchain_mixture.options import Options
from langchain_mixture.records import Call, LLMCall, estimated


@dataclass
class Budget:
    """The calls and tokens spent so far, and their limits."""

    options: Options
    calls: int
    tokens: int

    @classmethod
    def of(cls, options: Options, made: Sequence[LLMCall]) -> Budget:
        """Return the budget that is left after the calls made so far."""
        tokens = sum(
            call["in_tokens"] + call["out_tokens"] + call.get("estimated_tokens", 0)
            for call in made
        )
        return cls(options, len(made), tokens)

    def spend(self, call: Call, agent: ResolvedAgent) -> str | None:
        """Spend a call from the budget, or return why it must not be made.

        Its tokens are estimated: four characters a token to read, and the step's
        `max_tokens` to write, or none if the step sets no limit.
        """
        most = self.options.max_calls
        if most is not None and self.calls >= most:
            return f"not asked: max_calls={most} was reached"
        self.calls += 1
        limit = self.options.max_total_tokens
        if limit is not None:
            estimate = estimated(call["messages"])
            estimate += agent.arguments.get("max_tokens", 0)
            if self.tokens + estimate > limit:
                # A shorter call later in the step may still fit.
                self.calls -= 1
                return (
                    f"not asked: {counted(self.tokens, 'token')} had been used and it "
                    f"would use about {estimate}, past {limit} (max_total_tokens)"
                )
            self.tokens += estimate
        return None
