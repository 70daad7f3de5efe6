"""The steps that ask nobody: Shuffle, Dropout, Sample, Take, Filter, Map."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from langchain_mixture.errors import shown
from langchain_mixture.records import Reply, Response
from langchain_mixture.steps.base import Agent
from langchain_mixture.steps.checks import CheckedStep


@dataclass(frozen=True, repr=False)
class Shuffle(CheckedStep):
    """Put the responses in a random order, against the judge's position bias.

    Example:
        >>> Shuffle(seed=1)
        Shuffle(seed=1)
    """

    _: KW_ONLY
    seed: int | None = None
    """Makes the order repeatable; None = another one each time."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        return random.Random(self.seed).sample(responses, len(responses))


@dataclass(frozen=True, repr=False)
class Dropout(CheckedStep):
    """Drop each response with probability `rate`; at least one survives.

    Example:
        >>> Dropout(0.2)
        Dropout(rate=0.2)
    """

    rate: float
    """Probability in [0, 1]."""
    _: KW_ONLY
    seed: int | None = None
    """Makes the draw repeatable; None = another one each time."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        draw = random.Random(self.seed)
        kept = [response for response in responses if draw.random() >= self.rate]
        return kept or draw.sample(responses, min(1, len(responses)))


@dataclass(frozen=True, repr=False)
class Sample(CheckedStep):
    """Keep n responses at random; all of them where there are no more.

    Example:
        >>> Sample(3).bounds(6)[1]
        3
    """

    n: int
    """1 or more."""
    _: KW_ONLY
    seed: int | None = None
    """Makes the draw repeatable; None = another one each time."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (), min(n, self.n)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        count = min(self.n, len(responses))
        return random.Random(self.seed).sample(responses, count)


@dataclass(frozen=True, repr=False)
class Take(CheckedStep):
    """Keep the first n responses.

    Example:
        >>> Take(2).bounds(6)[1]
        2
    """

    n: int
    """1 or more."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (), min(n, self.n)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        return list(responses[: self.n])


@dataclass(frozen=True, repr=False)
class Filter(CheckedStep):
    """Keep the responses whose text the function accepts.

    Where it accepts none the run ends with `NoResponsesError`.

    Example:
        >>> brief = Filter(lambda text: len(text) < 2000)
    """

    fn: Callable[[str], object]
    """From a text to whether it stays; sync or async."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        def choose(verdicts: Sequence[object]) -> list[Response]:
            return [r for r, stays in zip(responses, verdicts, strict=True) if stays]

        return _applied(self.fn, responses, choose)


@dataclass(frozen=True, repr=False)
class Map(CheckedStep):
    """Change each response's text by a function.

    Example:
        >>> strip = Map(str.strip)
    """

    fn: Callable[[str], Any]
    """From a text to a text; sync or async."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        def change(texts: Sequence[object]) -> list[Response]:
            changed: list[Response] = []
            for response, text in zip(responses, texts, strict=True):
                if not isinstance(text, str):
                    raise TypeError(f"fn returned {shown(text)}; it must return text")
                changed.append({**response, "text": text})
            return changed

        return _applied(self.fn, responses, change)


def _applied(
    fn: Callable[[str], object],
    responses: Sequence[Response],
    then: Callable[[Sequence[object]], list[Response]],
) -> list[Response] | Awaitable[list[Response]]:
    """Call a user's function, sync or async, on each text, and use the results."""
    results = [fn(response["text"]) for response in responses]
    if not any(map(inspect.isawaitable, results)):
        return then(results)

    async def settled() -> list[Response]:
        waiting = [r if inspect.isawaitable(r) else _at_once(r) for r in results]
        return then(await asyncio.gather(*waiting))

    return settled()


async def _at_once(result: object) -> object:
    return result
