"""Verdicts: does a mixture beat the best single model?

The rule compares question by question, and with every member: a mixture helps only if
it beats them all. It never looks for the best member inside a bootstrap, which finds
"hurts" in 37-49 % of panels whose members are equally good.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from langchain_mixture.evaluation.needs import needed
from langchain_mixture.evaluation.statistics import (
    Differences,
    Interval,
    bonett_price,
    mcnemar,
    questions_needed,
)

ALPHA: Final = 0.025
"""The share of false claims on each side, over all mixtures compared."""

MANY: Final = 1_000_000
"""More questions than this are not counted out in a sentence."""

Score: TypeAlias = float | bool | None
"""Of one answer; None where it failed, which counts as 0."""


@dataclass(frozen=True)
class Verdict:
    """What the questions say about one mixture; `str()` is a sentence."""

    mixture: str
    """The mixture's name."""
    verdict: Literal["helps", "hurts", "cannot tell"]
    """`helps`: it beats every member. `hurts`: one of the best members beats it."""
    difference: float
    """Its mean score less that of the best member."""
    interval: Interval
    """The 95 % interval of the difference."""
    best: str
    """The member with the highest mean score."""
    needed: int
    """How many questions would show this difference with 80 % power; two points where
    there is none."""
    questions: int
    """How many there are."""
    score: float
    """Its mean score."""
    best_score: float
    """The best member's mean score."""
    beaten_by: str | None
    """Where it hurts, the first of the best members that beats it."""

    def __str__(self) -> str:
        shares = all(-1 <= s <= 1 for s in (self.score, self.best_score))
        unit, times, digits = (" points", 100, 1) if shares else ("", 1, 3)
        low, high = (f"{end * times:+.{digits}f}" for end in self.interval)
        found = (
            f"{self.difference * times:+.{digits}f}{unit} against {self.best} alone "
            f"[{low}, {high}], {self.questions:,} questions"
        )
        if self.verdict == "cannot tell":
            most = self.needed > MANY
            number = f"more than {MANY:,}" if most else f"about {self.needed:,}"
            return (
                f"{self.mixture}: cannot tell ({found}). A difference of this size "
                f"would take {number} questions."
            )
        other = self.beaten_by not in (None, self.best)
        why = f"; {self.beaten_by} beats it" if other else ""
        return f"{self.mixture} {self.verdict}: {found}{why}."


def verdicts(
    scores: Mapping[str, Sequence[Score]],
    mixtures: Collection[str],
    *,
    clusters: Sequence[Any] | None = None,
) -> dict[str, Verdict]:
    """Judge each mixture against all candidates that are no mixtures, the members.

    Right/wrong scores are compared by McNemar's mid-p test, graded ones by a paired t
    test, or by flipped signs with fewer than 30 questions. P is the number of mixtures.

    - *helps*: the mixture beats every member at p < .025 / P.
    - *hurts*: a member of the shortlist beats the mixture at p < .025 / (P · S). The
      shortlist is the best member and all that the data cannot tell from it; S is its
      length.
    - *cannot tell*: anything else.

    Args:
        scores: Each candidate's scores, all in the order of the same questions.
        mixtures: The names of those that are mixtures.
        clusters: A label for each question; those with the same label are related,
            such as questions on one text, and count as one observation.

    Returns:
        By mixture, its verdict.

    Raises:
        ValueError: A name is unknown, no member is left, or lengths differ.
        ImportError: scipy is missing; it comes with the extra `evaluation`.

    Example:
        >>> scores = {"one": [1, 0, 0, 1] * 50, "panel": [1, 1, 0, 1] * 50}
        >>> print(verdicts(scores, ["panel"])["panel"])
        panel helps: +25.0 points against one alone [+18.6, +30.9], 200 questions.
    """
    _check(scores, mixtures, clusters)
    values = {name: _numbers(name, of) for name, of in scores.items()}
    means = {name: float(of.mean()) for name, of in values.items()}
    members = [name for name in values if name not in mixtures]
    best = max(members, key=lambda name: means[name])

    def pair(first: str, second: str) -> Pair:
        return Pair(values[first], values[second], clusters)

    close = [
        name
        for name in sorted(members, key=lambda name: -means[name])
        if name == best or pair(best, name).p >= ALPHA
    ]
    level = ALPHA / max(1, len(mixtures))
    found: dict[str, Verdict] = {}
    for mixture in mixtures:
        helps = all(pair(mixture, name).p < level for name in members)
        beating = (n for n in close if pair(n, mixture).p < level / len(close))
        beaten_by = None if helps else next(beating, None)
        against = pair(mixture, best)
        found[mixture] = Verdict(
            mixture=mixture,
            verdict="helps" if helps else "hurts" if beaten_by else "cannot tell",
            difference=against.difference,
            interval=against.interval,
            best=best,
            needed=questions_needed(against.square, against.difference),
            questions=len(values[mixture]),
            score=means[mixture],
            best_score=means[best],
            beaten_by=beaten_by,
        )
    return found


def _numbers(name: str, scores: Sequence[Score]) -> Any:
    """Return scores as an array; a failed answer's is 0."""
    np = needed("numpy")
    values = np.array([0 if score is None else score for score in scores], dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"{name!r} has a score that is no finite number")
    return values


def _check(
    scores: Mapping[str, Sequence[Score]],
    mixtures: Collection[str],
    clusters: Sequence[Any] | None,
) -> None:
    known = ", ".join(map(repr, scores)) or "nothing"
    for mixture in mixtures:
        if mixture not in scores:
            raise ValueError(f"mixture {mixture!r} has no scores; those given: {known}")
    if not set(scores) - set(mixtures):
        raise ValueError(f"all candidates are mixtures ({known}); one must be a member")
    lengths = {name: len(of) for name, of in scores.items()}
    if clusters is not None:
        lengths["clusters"] = len(clusters)
    if len({*lengths.values()}) > 1 or 0 in lengths.values():
        raise ValueError(
            f"the numbers of scores are {lengths}; allowed: the same, 1 or more"
        )


class Pair:
    """Two candidates on the same questions.

    McNemar's test compares them where both are right/wrong and the questions unrelated,
    else their graded differences are.
    """

    def __init__(
        self,
        first: Sequence[float],
        second: Sequence[float],
        clusters: Sequence[Any] | None = None,
    ) -> None:
        both = needed("numpy").array([first, second], dtype=float)
        self._differences = both[0] - both[1]
        self._clusters = clusters
        self._plain = clusters is None and bool((both * (both - 1) == 0).all())
        self.difference = float(self._differences.mean())
        """The mean of the first less that of the second."""
        self.square = float((self._differences**2).mean())
        """The mean of the squared differences."""

    @property
    def _counts(self) -> tuple[int, int]:
        """How often the first alone is right, and how often the second."""
        signs = self._differences
        return int((signs > 0).sum()), int((signs < 0).sum())

    @property
    def p(self) -> float:
        """The p value of the first being better."""
        if self._plain:
            return mcnemar(*self._counts)
        return Differences(self._differences, self._clusters).p

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the difference."""
        if self._plain:
            return bonett_price(*self._counts, len(self._differences))
        return Differences(self._differences, self._clusters).interval
