"""What calls cost in US dollars: prices of models, and the cost of a history."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, Final, Literal, TypeAlias

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.records import HistoryRow, LLMCall, Result

Price: TypeAlias = Mapping[str, float]
"""Dollars per million tokens: `input`, which is needed, `cached_read`, `cache_written`,
`output`, `reasoning`, `audio_input`, `audio_output`. One that is missing is that of
`input`; of `reasoning` and `audio_output`, that of `output`."""


PriceFunction: TypeAlias = Callable[[str | None, str], Price | None]
"""A function of a provider (None if it is not known) and a model's name; it returns
None for a model without a price."""


Prices: TypeAlias = Mapping[str, Price] | PriceFunction | Literal["genai-prices"]
"""Prices by model name, a function that returns them, or the package of that name."""


LISTED: Final = "genai-prices"
"""The package with the providers' own prices; it needs no network."""


Dollars: TypeAlias = Callable[[Mapping[str, Any]], float]
"""The dollars of a call, given its tokens as LangChain's `UsageMetadata` names them."""


@dataclass(frozen=True)
class Cost:
    """What calls cost, in US dollars.

    Example:
        >>> Cost(total=0.25, source="prices").total
        0.25
    """

    total: float | None
    """Of all calls that reported their tokens; None if a model has no price."""
    estimated: float = 0.0
    """Of the calls that reported none, such as those that failed or were given up. By
    estimate, and not part of the total."""
    unpriced: tuple[str, ...] = ()
    """The models without a price."""
    models: Mapping[str, float] = field(default_factory=dict)
    """By model, under its provider's name for it; without those that have no price."""
    steps: Mapping[str, float | None] = field(default_factory=dict)
    """By step, such as `1_propose`; None if a model of it has no price."""
    source: str = LISTED
    """Where the prices are from: `prices`, or `genai-prices` and its version."""

    def record(self) -> dict[str, Any]:
        """Return these fields as plain data, which a checkpoint can hold."""
        return {
            **vars(self),
            "unpriced": list(self.unpriced),
            "models": dict(self.models),
            "steps": dict(self.steps),
        }


def cost(
    result_or_history: Result | Sequence[HistoryRow], prices: Prices | None = None
) -> Cost:
    """Return what a run cost, in US dollars.

    What has no price is named, and not counted as 0. Answers from LangChain's LLM cache
    are free. Tools that run at the provider, such as its web search, are not in it.

    Args:
        result_or_history: The `mixture` of a graph's output, or a history, such as
            that of `run` or of a `StepFailedError`.
        prices: See `create_mixture`; None = "genai-prices".

    Raises:
        InvalidMixtureError: This is no history, the prices are none, or the package
            genai-prices is not installed.

    Example:
        >>> call = {"model": "m", "in_tokens": 1_000_000, "out_tokens": 500_000}
        >>> rows = [{"name": "1_propose", "llm_calls": [call]}]
        >>> cost(rows, {"m": {"input": 2.0, "output": 8.0}}).total
        6.0
        >>> cost(rows, {}).unpriced
        ('m',)
    """
    prices = LISTED if prices is None else prices
    check_prices(prices)
    rows: Any = result_or_history
    if isinstance(rows, Mapping):
        rows = rows.get("history")
    if not isinstance(rows, list | tuple):
        raise InvalidMixtureError(
            f"result_or_history is {shown(result_or_history)}; allowed: the `mixture` "
            "of a graph's output, or a history."
        )
    return cost_of(
        ((row["name"], call) for row in rows for call in _calls(row)), prices
    )


def _calls(row: Mapping[str, Any]) -> list[LLMCall]:
    calls: list[LLMCall] = row["llm_calls"]
    return calls


def cost_of(calls: Iterable[tuple[str, LLMCall]], prices: Prices) -> Cost:
    """Return the cost of calls, each with the name of its step."""
    models: dict[str, float] = {}
    steps: dict[str, float | None] = {}
    unpriced: dict[str, None] = {}
    estimated: list[float] = []
    for step, call in calls:
        spent = steps.setdefault(step, 0.0)
        for provider, name, tokens in _parts(call):
            dollars = price_of(prices, provider, name)
            if dollars is None:
                unpriced[name] = None
                spent = None
                continue
            if tokens.get("estimated"):
                estimated.append(dollars(tokens))
                continue
            each = dollars(tokens)
            models[name] = models.get(name, 0.0) + each
            spent = None if spent is None else spent + each
        steps[step] = spent
    return Cost(
        total=None if unpriced else math.fsum(models.values()),
        estimated=math.fsum(estimated),
        unpriced=tuple(unpriced),
        models=models,
        steps=steps,
        source=f"{LISTED} {version(LISTED)}" if prices == LISTED else "prices",
    )


def _parts(call: LLMCall) -> Iterator[tuple[str | None, str, Mapping[str, Any]]]:
    """Yield the provider, the model and the tokens of each model that a call asked."""
    name = call.get("model_name") or call["model"]
    provider = call.get("model_provider")
    if "models" in call:
        for model in call["models"]:
            named = model.get("model_name") or name
            yield model.get("model_provider"), named, model
    elif call["in_tokens"] or call["out_tokens"]:
        details = ("input_token_details", "output_token_details")
        yield (
            provider,
            name,
            {
                "input_tokens": call["in_tokens"],
                "output_tokens": call["out_tokens"],
                **{key: call.get(key, {}) for key in details},
            },
        )
    if guess := call.get("estimated_tokens", 0):
        written = call.get("estimated_out_tokens", 0)
        tokens = {"input_tokens": guess - written, "output_tokens": written}
        yield provider, name, {**tokens, "estimated": True}


def in_dollars(amount: float) -> str:
    """Return an amount with its cents, or with six digits where it is small.

    Example:
        >>> in_dollars(12.345), in_dollars(0.00125)
        ('$12.35', '$0.00125')
    """
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.6f}".rstrip("0").rstrip(".")


# -- Prices --------------------------------------------------------------------------


def price_of(
    prices: Prices | None, provider: str | None, *names: str
) -> Dollars | None:
    """Return what tokens cost by the price of the first name that has one.

    Args:
        prices: See `create_mixture`.
        provider: The provider, as LangChain names it; None if it is not known.
        *names: Names of the model, such as `gpt-4o-2024-08-06` or `openai:gpt-4o`. In
            a mapping a name is looked for without its date, too.

    Raises:
        InvalidMixtureError: A function of prices returns what are no prices.

    Example:
        >>> dollars = price_of({"m": {"input": 2.0}}, None, "m-2024-08-06")
        >>> dollars({"input_tokens": 500_000, "output_tokens": 0})
        1.0
    """
    pairs = [pair for name in names for pair in _pairs(provider, name)]
    for source, name in pairs:
        if prices == LISTED:
            if _is_listed(source, name):
                return partial(_listed_dollars, source, name)
        elif isinstance(prices, Mapping):
            for key in _keys(source, name):
                if key in prices:
                    return partial(dollars_of, prices[key])
        elif callable(prices):
            price = prices(source, name)
            if price is not None:
                _check_price(price, f"prices({source!r}, {name!r})")
                return partial(dollars_of, price)
    return None


def _pairs(provider: str | None, name: str) -> Iterator[tuple[str | None, str]]:
    """Yield the providers and names that a name may mean."""
    first, _, rest = name.partition(":")
    if rest and provider is None:
        yield first, rest
    yield provider, name


def _keys(provider: str | None, name: str) -> list[str]:
    names = [name, _DATE.sub("", name)]
    return [*(f"{provider}:{each}" for each in names if provider), *names]


_DATE: Final = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|latest)$")
"""The end of a name that says which snapshot of a model it is."""


def dollars_of(price: Price, tokens: Mapping[str, Any]) -> float:
    """Return the dollars of a call.

    Args:
        price: Dollars per million tokens.
        tokens: As LangChain's `UsageMetadata` names them.

    Example:
        >>> tokens = {"input_tokens": 1_000_000, "output_tokens": 500_000,
        ...           "input_token_details": {"cache_read": 400_000}}
        >>> dollars_of({"input": 2.0, "cached_read": 0.5, "output": 8.0}, tokens)
        5.4
    """
    count = _counted(tokens)
    plain = price["input"]
    written = price.get("output", plain)
    others = {"reasoning": written, "audio_output": written}
    dollars = [
        number * price.get(kind, others.get(kind, plain))
        for kind, number in count.items()
        if kind not in ("cache_written_1h", "tier")
    ]
    return math.fsum(dollars) / 1e6


def _counted(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens of each kind, so that each is counted once."""
    read = _details(tokens.get("input_token_details"))
    written = _details(tokens.get("output_token_details"))
    hour = read.get("ephemeral_1h_input_tokens", 0)
    kept = read.get("cache_creation", 0) + read.get("ephemeral_5m_input_tokens", 0)
    cached, heard = read.get("cache_read", 0), read.get("audio", 0)
    thought, said = written.get("reasoning", 0), written.get("audio", 0)
    rest = tokens.get("input_tokens", 0) - cached - kept - hour - heard
    return {
        "input": max(0, rest),
        "cached_read": cached,
        "cache_written": kept + hour,
        "cache_written_1h": hour,
        "audio_input": heard,
        "output": max(0, tokens.get("output_tokens", 0) - thought - said),
        "reasoning": thought,
        "audio_output": said,
        "tier": next((tier for tier in _TIERS if tier in {*read, *written}), None),
    }


def _details(given: Any) -> dict[str, int]:
    """Return details without the service tier that OpenAI's names begin with."""
    details: dict[str, int] = {}
    for name, number in (given or {}).items():
        plain = re.sub(f"^({'|'.join(_TIERS)})_", "", name)
        details[plain] = details.get(plain, 0) + (number or 0)
    return details


_TIERS: Final = ("flex", "priority")


def check_prices(prices: object) -> None:
    """Refuse what are no prices; None is allowed.

    Raises:
        InvalidMixtureError: This is no source of prices, a model's prices lack `input`,
            or the package genai-prices is not installed.

    Example:
        >>> check_prices({"m": {"output": 1.0}})
        Traceback (most recent call last):
            ...
        langchain_mixture.errors.InvalidMixtureError: prices['m'] is {'output': 1.0}; \
allowed: dollars per million tokens for input, cached_read, cache_written, output, \
reasoning, audio_input, audio_output, of which input is needed.
    """
    if prices is None or callable(prices):
        return
    if isinstance(prices, Mapping):
        for name, price in prices.items():
            _check_price(price, f"prices[{name!r}]")
    elif prices != LISTED:
        raise InvalidMixtureError(
            f"prices is {shown(prices)}; allowed: a mapping from model names to prices,"
            f' a function of a provider and a model, or "{LISTED}".'
        )
    elif importlib.util.find_spec("genai_prices") is None:
        raise InvalidMixtureError(
            f"the prices of {LISTED} need that package: "
            'pip install "langchain-mixture[prices]". Or give prices.'
        )


_KINDS: Final = (
    "input",
    "cached_read",
    "cache_written",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
)


def _check_price(price: object, name: str) -> None:
    amounts = dict(price) if isinstance(price, Mapping) else {}
    if "input" not in amounts or not all(
        kind in _KINDS and _is_amount(amount) for kind, amount in amounts.items()
    ):
        raise InvalidMixtureError(
            f"{name} is {price!r}; allowed: dollars per million tokens for "
            f"{', '.join(_KINDS)}, of which input is needed."
        )


def _is_amount(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )


# -- The package genai-prices --------------------------------------------------------


@lru_cache(maxsize=1024)
def _is_listed(provider: str | None, model: str) -> bool:
    from genai_prices import Usage, calc_price

    try:
        calc_price(Usage(input_tokens=1), model, provider_id=provider)
    except LookupError:
        return False
    return True


def _listed_dollars(
    provider: str | None, model: str, tokens: Mapping[str, Any]
) -> float:
    count = _counted(tokens)
    return _calculated(provider, model, tuple(count.items()))


@lru_cache(maxsize=4096)
def _calculated(
    provider: str | None, model: str, counts: tuple[tuple[str, Any], ...]
) -> float:
    from genai_prices import Usage, calc_price

    count = dict(counts)
    read = ("input", "cached_read", "cache_written", "audio_input")
    usage = Usage(
        input_tokens=sum(count[kind] for kind in read),
        cache_read_tokens=count["cached_read"],
        cache_write_tokens=count["cache_written"],
        cache_write_1h_tokens=count["cache_written_1h"],
        input_audio_tokens=count["audio_input"],
        output_tokens=count["output"] + count["reasoning"] + count["audio_output"],
        output_audio_tokens=count["audio_output"],
        output_reasoning_tokens=count["reasoning"],
    )
    tier = {"service_tier": count["tier"]} if count["tier"] else None
    found = calc_price(usage, model, provider_id=provider, price_context=tier)
    return float(found.total_price)
