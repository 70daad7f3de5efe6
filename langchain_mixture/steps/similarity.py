"""How alike texts are: by their characters, or by vectors of the user's own."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

Vector: TypeAlias = Mapping[Any, float]
"""Its parts by name; those that are not there are zero."""


MOST_COMPARED: Final = 20_000
"""How many characters of each text are compared."""


def vectors_of(texts: Sequence[str]) -> list[Vector]:
    """Return the tf-idf vector of each text, over runs of three and four characters.

    Its length is 1, before the runs that no other text has are left out: they add to
    no similarity.

    Example:
        >>> one, two, other = vectors_of(["An ion.", "An ion!", "Blue"])
        >>> round(similarity(one, two), 2), similarity(one, other)
        (0.57, 0.0)
    """
    counts = [Counter(_runs(f" {text[:MOST_COMPARED]} ")) for text in texts]
    having = Counter(chain.from_iterable(counts))
    weights = [1 + math.log((1 + len(texts)) / (1 + n)) for n in range(1 + len(texts))]
    vectors: list[Vector] = []
    for count in counts:
        parts = {run: times * weights[having[run]] for run, times in count.items()}
        length = math.hypot(*parts.values()) or 1.0
        vectors.append({run: x / length for run, x in parts.items() if having[run] > 1})
    return vectors


def _runs(text: str) -> Iterable[str]:
    yield from [text[at : at + 3] for at in range(len(text) - 2)]
    yield from [text[at : at + 4] for at in range(len(text) - 3)]


def vectors_from(rows: Iterable[Iterable[float]], count: int) -> list[Vector]:
    """Check the vectors that a user's function returned, and make their length 1.

    Raises:
        ValueError: There is not one for each text, or they cannot be compared.
    """
    vectors = [dict(enumerate(map(float, row))) for row in rows]
    sizes = sorted({len(vector) for vector in vectors})
    finite = all(math.isfinite(x) for vector in vectors for x in vector.values())
    if len(vectors) != count or len(sizes) > 1 or not finite:
        raise ValueError(
            f"embed returned {len(vectors)} vectors of {sizes} numbers for {count} "
            "texts; it must return one for each, all of as many finite numbers"
        )
    lengths = [math.hypot(*vector.values()) or 1.0 for vector in vectors]
    return [
        {part: x / length for part, x in vector.items()}
        for vector, length in zip(vectors, lengths, strict=True)
    ]


def similarity(one: Vector, other: Vector) -> float:
    """Return the cosine of the angle between two vectors of length 1."""
    has = other.get
    return sum([x * has(part, 0.0) for part, x in one.items()])  # a list is faster


def likeness(vectors: Sequence[Vector]) -> list[float]:
    """Return how similar each vector is to all others together."""
    total: dict[Hashable, float] = defaultdict(float)
    for vector in vectors:
        for part, x in vector.items():
            total[part] += x
    # Rounded, as sums of floats depend on their order, and ties go to the first.
    return [
        round(similarity(vector, total) - similarity(vector, vector), 9)
        for vector in vectors
    ]


def most_different(vectors: Sequence[Vector], k: int) -> list[int]:
    """Choose k vectors that differ, by their positions, in the order of choice.

    The first one is the least similar to all others; the next one is always that whose
    greatest similarity to those chosen is smallest (RMoA, arXiv 2505.24442).
    """
    like = likeness(vectors)
    left = dict.fromkeys(range(len(vectors)), -math.inf)
    chosen: list[int] = []
    while left and len(chosen) < k:
        nearest = left if chosen else dict(enumerate(like))
        best = min(left, key=nearest.__getitem__)
        chosen.append(best)
        del left[best]
        for other, near in left.items():
            alike = round(similarity(vectors[best], vectors[other]), 9)
            left[other] = max(near, alike)
    return chosen
