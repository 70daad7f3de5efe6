"""The budget of a run: calls and tokens, told before they are spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_mixture.agents import Member
from langchain_mixture.calls import estimated
from langchain_mixture.options import Options
from langchain_mixture.steps import Call, HistoryRow


@dataclass
class Budget:
    """What has been spent, and what may be."""

    options: Options
    calls: int
    tokens: int

    @classmethod
    def of(cls, options: Options, history: Sequence[HistoryRow]) -> Budget:
        """Begin with what a history has spent."""
        calls = [call for row in history for call in row["llm_calls"]]
        tokens = sum(
            call["in_tokens"] + call["out_tokens"] + call.get("estimated_tokens", 0)
            for call in calls
        )
        return cls(options, len(calls), tokens)

    def refuses(self, call: Call, member: Member) -> str | None:
        """Say why a call must not be made, or spend it and say None.

        Tokens are an estimate: about four characters a token to read, and as many to
        write as the step's `max_tokens` allows, or none where it says nothing.
        """
        most = self.options.max_calls
        if most is not None and self.calls >= most:
            return f"not asked: the {most} calls of max_calls had been made"
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
