"""The budget of a run: its maximum of calls, of tokens and of dollars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.errors import InvalidMixtureError, counted
from langchain_mixture.options import Options
from langchain_mixture.prices import Dollars, Prices, cost_of, in_dollars, price_of
from langchain_mixture.records import Call, LLMCall, estimated
from langchain_mixture.runnables import leaves, limit_of, model_name_of, provider_of


@dataclass
class Budget:
    """The calls, tokens and dollars spent so far, and their limits."""

    options: Options
    calls: int
    tokens: int
    dollars: float = 0.0
    unpriced: Sequence[str] = ()
    """The models that answered and have no price, so that no dollar is left."""

    @classmethod
    def of(cls, options: Options, made: Sequence[LLMCall]) -> Budget:
        """Return the budget that is left after the calls made so far."""
        tokens = sum(
            call["in_tokens"] + call["out_tokens"] + call.get("estimated_tokens", 0)
            for call in made
        )
        budget = cls(options, len(made), tokens)
        if options.max_cost is not None and options.priced_by is not None:
            spent = cost_of((("", call) for call in made), options.priced_by)
            budget.dollars = (spent.total or 0.0) + spent.estimated
            budget.unpriced = spent.unpriced
        return budget

    def spend(
        self, call: Call, agent: ResolvedAgent, arguments: Mapping[str, Any]
    ) -> str | None:
        """Spend a call from the budget, or return why it must not be made.

        Its tokens are estimated: four characters a token to read, and to write what
        `max_tokens` allows, or none if neither the call nor its model sets a limit.

        Args:
            call: The call.
            agent: The agent that it asks.
            arguments: The settings of the call, such as `max_tokens`.
        """
        most = self.options.max_calls
        if most is not None and self.calls >= most:
            return f"not asked: max_calls={most} was reached"
        tokens = dollars = 0.0
        if self.options.max_total_tokens is not None or self.options.max_cost:
            read = estimated(call["messages"])
            written = arguments.get("max_tokens") or limit_of(agent.runnable) or 0
            tokens = read + written
            dollars = self._dollars(agent, read, written)
        # A shorter call later in the step may still fit.
        if (why := self._refused(tokens, dollars)) is not None:
            return why
        self.calls += 1
        self.tokens += int(tokens)
        self.dollars += dollars
        return None

    def _dollars(self, agent: ResolvedAgent, read: int, written: int) -> float:
        prices = self.options.priced_by
        if self.options.max_cost is None or prices is None:
            return 0.0
        tokens = {"input_tokens": read, "output_tokens": written}
        found = (price for _, price in prices_of(agent, prices) if price is not None)
        return max((price(tokens) for price in found), default=0.0)

    def _refused(self, tokens: float, dollars: float) -> str | None:
        limit, most = self.options.max_total_tokens, self.options.max_cost
        if limit is not None and self.tokens + tokens > limit:
            return (
                f"not asked: {counted(self.tokens, 'token')} had been used and it "
                f"would use about {tokens:.0f}, past {limit} (max_total_tokens)"
            )
        if most is not None and self.unpriced:
            return (
                f"not asked: there is no price for {', '.join(self.unpriced)}, which "
                f"answered, so that ${most} cannot be kept (max_cost)"
            )
        if most is not None and self.dollars + dollars > most * (1 + 1e-9):
            return (
                f"not asked: {in_dollars(self.dollars)} had been spent and it would "
                f"cost about {in_dollars(dollars)}, past ${most} (max_cost)"
            )
        return None


def prices_of(
    agent: ResolvedAgent, prices: Prices
) -> Iterator[tuple[str, Dollars | None]]:
    """Yield the names and prices of the models that may answer for an agent."""
    for leaf in leaves(agent.runnable):
        model = model_name_of(agent.runnable, leaf)
        names = [name for name in (model,) if name is not None]
        # What a chain or a graph asks inside is not known before it has asked.
        if model is None or not agent.is_model:
            names.insert(0, agent.name)
        yield names[0], price_of(prices, provider_of(leaf), *names)


def check_priced(agents: Iterable[ResolvedAgent], options: Options) -> None:
    """Refuse models without a price where dollars have a limit.

    Raises:
        InvalidMixtureError: There are such models; the message names them.
    """
    prices = options.priced_by
    if options.max_cost is None or prices is None:
        return
    missing = {
        name: None
        for agent in agents
        for name, price in prices_of(agent, prices)
        if price is None
    }
    if missing:
        raise InvalidMixtureError(
            f"max_cost is {options.max_cost}, and there is no price for "
            f"{', '.join(map(repr, missing))}; give one in prices. A chain, a graph or "
            "a mixture needs one under its own name."
        )
