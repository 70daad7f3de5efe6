"""The budget of a run: what has been spent, and what may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.errors import counted
from langchain_mixture.options import Options
from langchain_mixture.records import Call, LLMCall, estimated


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

    def spend(self, call: Call, agent: ResolvedAgent) -> str | None:
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
            estimate += agent.arguments.get("max_tokens", 0)
            if self.tokens + estimate > limit:
                self.calls -= 1
                return (
                    f"not asked: {counted(self.tokens, 'token')} had been used and it "
                    f"would use about {estimate}, past {limit} (max_total_tokens)"
                )
            self.tokens += estimate
        return None
