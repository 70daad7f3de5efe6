"""What an answer costs in US dollars, from prices per million tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Prices: TypeAlias = Mapping[str, Mapping[str, float]]
"""By model name, dollars per million tokens: `input`, `cached_read`, `cache_written`,
`output`; one that is missing is that of `input`."""


def price_of(prices: Prices | None, *names: str) -> Mapping[str, float] | None:
    """Return the prices of the first name that has some.

    Example:
        >>> price_of({"m": {"input": 2.0}}, "m-2024-08-06", "m")
        {'input': 2.0}
    """
    known = (name for name in names if prices and name in prices)
    name = next(known, None)
    return None if name is None or prices is None else prices[name]


def cost_of(usage: Mapping[str, Any], price: Mapping[str, float]) -> float:
    """Return the cost of a call in dollars.

    Args:
        usage: Its tokens, as LangChain's `UsageMetadata` names them.
        price: Dollars per million tokens.

    Example:
        >>> usage = {"input_tokens": 1_000_000, "output_tokens": 500_000,
        ...          "input_token_details": {"cache_read": 400_000}}
        >>> cost_of(usage, {"input": 2.0, "cached_read": 0.5, "output": 8.0})
        5.4
    """
    details = usage.get("input_token_details") or {}
    read = details.get("cache_read") or 0
    written = details.get("cache_creation") or 0
    plain = price["input"]
    tokens = {
        "input": usage.get("input_tokens", 0) - read - written,
        "cached_read": read,
        "cache_written": written,
        "output": usage.get("output_tokens", 0),
    }
    dollars = [price.get(kind, plain) * n for kind, n in tokens.items()]
    return float(sum(dollars)) / 1e6


def check_prices(prices: Prices | None) -> None:
    """Refuse what are no prices.

    Raises:
        ValueError: A model's prices lack `input`, or one is no amount of dollars.
    """
    kinds = ("input", "cached_read", "cache_written", "output")
    for name, price in (prices or {}).items():
        amounts = dict(price) if isinstance(price, Mapping) else {}
        if "input" not in amounts or not all(
            kind in kinds and isinstance(amount, int | float) and amount >= 0
            for kind, amount in amounts.items()
        ):
            raise ValueError(
                f"prices[{name!r}] is {price!r}; allowed: dollars per million tokens "
                f"for {', '.join(kinds)}, of which input is needed"
            )
