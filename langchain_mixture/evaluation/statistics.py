"""Paired statistics: who is better on the same questions, and by how much.

Every p value is one-sided: small where the first candidate is the better one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from langchain_mixture.evaluation.needs import needed

Interval: TypeAlias = tuple[float, float]
"""The ends of a 95 % interval."""

_Z: Final = 1.96
"""Standard errors on each side of a 95 % interval."""
_POWER: Final = 0.84
"""Standard errors that 80 % power adds."""
TWO_POINTS: Final = 0.02
"""The difference to look for where none was observed."""
FEW: Final = 30
"""With fewer differences than this their signs are flipped, as a t test needs more."""
_RESAMPLES: Final = 2_000


def mcnemar(b: int, c: int) -> float:
    """Return the mid-p value of McNemar's test.

    Args:
        b: The number of questions that only the first candidate has right.
        c: The number that only the second has right.

    Example:
        >>> mcnemar(9, 1) < 0.025 < mcnemar(1, 9)
        True
        >>> mcnemar(0, 0)
        0.5
    """
    more = needed("scipy.special").bdtrc  # the chance of more than this of n tosses
    return float(more(b, b + c, 0.5) + more(b - 1, b + c, 0.5)) / 2


def bonett_price(b: int, c: int, n: int) -> Interval:
    """Return the interval of a difference of paired shares, (b - c) / n.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data".

    Example:
        >>> low, high = bonett_price(30, 10, 500)
        >>> round(low, 3), round(high, 3)
        (0.015, 0.065)
    """
    first, second = (b + 1) / (n + 2), (c + 1) / (n + 2)
    difference = first - second
    error = _Z * math.sqrt((first + second - difference**2) / (n + 2))
    return max(-1.0, difference - error), min(1.0, difference + error)


def clopper_pearson(k: int, n: int) -> Interval:
    """Return the exact interval of a share, k of n.

    Clopper and Pearson 1934.

    Example:
        >>> low, high = clopper_pearson(0, 100)
        >>> low, round(high, 3)
        (0.0, 0.036)
    """
    found = needed("scipy.stats").binomtest(k, n).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def questions_needed(square: float, difference: float) -> int:
    """Return how many questions show a difference with 80 % power.

    Args:
        square: The mean of the squared differences: for right/wrong scores the share of
            questions on which the two differ.
        difference: The mean difference; where it is 0, two points are looked for.

    Example:
        >>> questions_needed(0.09, 0.02)
        1762
    """
    if not difference:
        difference = TWO_POINTS
        square = max(square, difference)
    spread = math.sqrt(max(0.0, square - difference**2))
    root = (_Z * math.sqrt(square) + _POWER * spread) / difference
    return math.ceil(root**2)


class Differences:
    """Differences of graded scores, question by question, added up by cluster.

    Example:
        >>> Differences([0.5, 0.1, 0.2, 0.4, 0.3, 0.6]).p < 0.025
        True
    """

    def __init__(
        self, values: Sequence[float], clusters: Sequence[Any] | None = None
    ) -> None:
        np = needed("numpy")
        self._np = np
        labels = range(len(values)) if clusters is None else clusters
        numbers = {label: place for place, label in enumerate(dict.fromkeys(labels))}
        places = [numbers[label] for label in labels]
        self._sizes = np.bincount(places)
        self._sums = np.bincount(places, weights=values)
        self._mean = self._sums.sum() / len(values)

    @property
    def p(self) -> float:
        """The p value: of a t test, or of flipped signs where there are few."""
        if not self._sums.any():
            return 0.5
        return self._flipped() if len(self._sums) < FEW else self._t()

    def _t(self) -> float:
        count = len(self._sums)
        spread = ((self._sums - self._mean * self._sizes) ** 2).sum()
        error = math.sqrt(spread * count / (count - 1)) / self._sizes.sum()
        if not error:
            return 0.0 if self._mean > 0 else 1.0
        return float(needed("scipy.stats").t.sf(self._mean / error, count - 1))

    def _flipped(self) -> float:
        found = needed("scipy.stats").permutation_test(
            (self._sums,),
            self._np.sum,
            permutation_type="samples",
            alternative="greater",
            rng=0,
        )
        return float(found.pvalue)

    @property
    def interval(self) -> Interval:
        """The interval of the mean difference, by a paired bootstrap."""
        np = self._np
        rng = np.random.default_rng(0)
        count = len(self._sums)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
        means = (drawn @ self._sums) / (drawn @ self._sizes)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)
