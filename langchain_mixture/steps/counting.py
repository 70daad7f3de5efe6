"""The steps that compare responses and ask no model: Majority, Medoid, Diverse."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

from langchain_mixture.records import Kept, Reply, Response
from langchain_mixture.steps.base import Agent
from langchain_mixture.steps.checks import CheckedStep
from langchain_mixture.steps.keys import Key, compared, counted, exact, leader, votes
from langchain_mixture.steps.similarity import (
    Vector,
    likeness,
    most_different,
    vectors_from,
    vectors_of,
)

Embed: TypeAlias = Callable[[list[str]], Any]
"""From a list of texts to one vector each, sync or async; such as
`embeddings.embed_documents` or `embeddings.aembed_documents`."""


@dataclass(frozen=True, repr=False)
class Majority(CheckedStep):
    """Keep the first response of the answer that most responses give, unchanged.

    Plurality by counting, without a call: self-consistency (Wang et al. 2022, arXiv
    2203.11171) where the responses are samples of one model. A tie goes to the answer
    that comes first, so list the best model first. The history says how many votes each
    answer has, the share of all responses that the winner has, and who voted
    otherwise. Where no response has a vote, the first one is kept, and the result is
    degraded.

    It is for answers that can be compared. Of free texts hardly two are the same: use
    `Vote`, `Rank` or `Aggregate`.

    Example:
        >>> from langchain_mixture import letter
        >>> Majority(letter).bounds(4)[1]
        1
    """

    key: Key = exact
    """From a text to what is compared, or None for no vote: `letter`, `number`,
    `exact`, `json_field(name)`, or any function. Where a response has no text, its
    tool calls, written out, are compared."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (), min(n, 1)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        given = votes(responses, self.key)
        counts = counted(given)
        winner = leader(counts)
        if winner is None:
            reason = f"none of {len(responses)} responses has a vote; the first is kept"
            return Kept(responses[:1], reason=reason)
        note = {
            "counts": _named(counts),
            "share": counts[winner] / len(responses),
            "minority": [
                response["id"]
                for response, vote in zip(responses, given, strict=True)
                if vote not in (winner, None)
            ],
        }
        return Kept([responses[given.index(winner)]], note=note)


LONGEST_NAME = 80
"""Characters of an answer in the history's counts."""


def _named(counts: Mapping[Hashable, int]) -> dict[str, int]:
    """Write answers out for the history; those that look the same are numbered."""
    named: dict[str, int] = {}
    for answer, count in counts.items():
        text = str(answer)
        name = start = text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
        number = 1
        while name in named:
            number += 1
            name = f"{start} #{number}"
        named[name] = count
    return named


@dataclass(frozen=True, repr=False)
class Medoid(CheckedStep):
    """Keep the response that is most like all others, unchanged.

    A vote for texts that no key can compare, without a call. Texts are alike by their
    runs of characters (tf-idf), or by `embed`. With chains of thought it works about as
    well as `Majority` does with a key; for creative writing it gains nothing, and weak
    responses pull it their way.

    Example:
        >>> Medoid().bounds(4)[1]
        1
    """

    _: KW_ONLY
    embed: Embed | None = None
    """From a list of texts to one vector each, sync or async, such as
    `embeddings.aembed_documents`; None = by characters, without a model."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (), min(n, 1)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        def choose(vectors: Sequence[Vector]) -> list[Response]:
            like = likeness(vectors)
            return [responses[like.index(max(like))]]

        return _compared_by(self.embed, responses, choose, least=1)


@dataclass(frozen=True, repr=False)
class Diverse(CheckedStep):
    """Keep the k responses that differ most, in the order in which they came.

    Put it before `Aggregate`, so that the aggregator reads less and no view is lost:
    RMoA (arXiv 2505.24442) keeps three. First the response that is least similar to
    all is chosen, then always the one whose greatest similarity to those chosen is
    smallest.

    Example:
        >>> Diverse(3).bounds(6)[1]
        3
    """

    k: int
    """1 or more."""
    _: KW_ONLY
    embed: Embed | None = None
    """From a list of texts to one vector each, sync or async, such as
    `embeddings.aembed_documents`; None = by characters, without a model."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (), min(n, self.k)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        def choose(vectors: Sequence[Vector]) -> list[Response]:
            return [responses[at] for at in sorted(most_different(vectors, self.k))]

        return _compared_by(self.embed, responses, choose, least=self.k)


def _compared_by(
    embed: Embed | None,
    responses: Sequence[Response],
    choose: Callable[[Sequence[Vector]], list[Response]],
    least: int,
) -> list[Response] | Awaitable[list[Response]]:
    """Make vectors of the responses and choose, where there are more than `least`."""
    if len(responses) <= least:  # no embedding is paid for nothing
        return list(responses)
    texts = [compared(response) for response in responses]
    if embed is None:
        return choose(vectors_of(texts))
    rows = embed(texts)
    if not inspect.isawaitable(rows):
        return choose(vectors_from(rows, len(texts)))

    async def chosen(rows: Awaitable[Iterable[Iterable[float]]]) -> list[Response]:
        return choose(vectors_from(await rows, len(texts)))

    return chosen(rows)
