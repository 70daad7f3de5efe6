"""What a comparison found, as values: verdicts, rows, ceilings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from langchain_mixture.evaluation.panel import Ceiling
from langchain_mixture.evaluation.verdict import Pair, Verdict, verdicts

Kind: TypeAlias = Literal["mixture", "single", "equal budget"]


@dataclass(frozen=True)
class Answer:
    """One candidate's answer to one question: the mean of all its runs."""

    text: str
    """Of the first run."""
    scores: list[float]
    """One a run; 0 where it failed."""
    key: Any
    """What `matches` compared with the gold answer; None with another score."""
    seconds: float
    calls: float
    tokens: float
    """Read and written."""
    cost: float | None
    """Dollars; None where a model has no price."""
    error: str | None
    """Why it has no score: the answer counts as wrong until a second run gets one."""
    reasons: list[str]
    """What went wrong on the way to an answer that is there all the same."""

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Compared:
    """One question, and what all candidates answered."""

    id: str
    question: str
    gold: Any
    cluster: Any
    answers: dict[str, Answer]
    """By candidate."""


@dataclass
class Found:
    """Verdicts, and all that they rest on."""

    questions: list[Compared]
    """Those that all candidates were asked."""
    kinds: dict[str, Kind]
    """What each candidate is, by name."""
    members: dict[str, list[str]]
    """By mixture, the names of its single models."""
    calls: int
    """How many calls were really made, replayed answers not counted."""
    spent: float | None = None
    """What they cost, in dollars; None without prices."""
    left: int = 0
    """How many questions were not asked to the end."""
    stopped: str | None = None
    """Why not."""
    agreed: float | None = None
    """Where a judge scored: how often its two verdicts were the same."""
    keyed: bool = False
    """Whether `matches` scored, so that answers have keys."""
    clustered: bool = False
    """Whether related questions were kept together."""
    notes: list[str] = field(default_factory=list)
    """What else a reader must know."""

    def scores(self, name: str) -> list[float]:
        """Return a candidate's scores, question by question."""
        return [question.answers[name].score for question in self.questions]

    def of_kind(self, kind: Kind) -> list[str]:
        """Return the names of the candidates of a kind."""
        return [name for name, one in self.kinds.items() if one == kind]

    @property
    def _clusters(self) -> list[Any] | None:
        clusters = [question.cluster for question in self.questions]
        return clusters if self.clustered else None

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """By mixture, whether it helps."""
        mixtures, singles = self.of_kind("mixture"), self.of_kind("single")
        if not self.questions or not singles:
            return {}
        scores = {name: self.scores(name) for name in [*singles, *mixtures]}
        return verdicts(scores, mixtures, clusters=self._clusters)

    @cached_property
    def best(self) -> str | None:
        """The name of the best single model."""
        singles = self.of_kind("single") if self.questions else []
        return max(singles, key=lambda name: sum(self.scores(name)), default=None)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row a candidate, the best first: what the table shows.

        `calls`, `tokens` and `cost` (dollars) are those of one answer, as if nothing
        had been shared; `p50` and `p95` are seconds.
        """
        if not self.questions:
            return []
        rows = [self._row(name) for name in self.kinds]
        return sorted(rows, key=lambda row: -row["score"])

    def _row(self, name: str) -> dict[str, Any]:
        answers = [question.answers[name] for question in self.questions]
        n = len(answers)
        scores = self.scores(name)
        costs = [answer.cost for answer in answers]
        priced = [cost for cost in costs if cost is not None]
        row: dict[str, Any] = {
            "candidate": name,
            "kind": self.kinds[name],
            "score": sum(scores) / n,
            "difference": None,
            "interval": None,
            "failed": sum(answer.error is not None for answer in answers),
            "degraded": sum(bool(answer.reasons) for answer in answers),
            "calls": sum(answer.calls for answer in answers) / n,
            "tokens": sum(answer.tokens for answer in answers) / n,
            "p50": _quantile([answer.seconds for answer in answers], 0.5),
            "p95": _quantile([answer.seconds for answer in answers], 0.95),
            "cost": sum(priced) / n if len(priced) == n else None,
            "cost_per_right": None,
        }
        if self.best in (None, name):
            return row
        against = Pair(scores, self.scores(self.best or ""), self._clusters)
        row |= {"difference": against.difference, "interval": against.interval}
        cost = self._row(self.best or "")["cost"]
        if None not in (cost, row["cost"]) and against.difference > 0:
            row["cost_per_right"] = (row["cost"] - cost) / against.difference
        return row

    @property
    def _is_graded(self) -> bool:
        return any(
            score not in (0, 1)
            for question in self.questions
            for answer in question.answers.values()
            for score in answer.scores
        )

    @cached_property
    def ceilings(self) -> dict[str, Ceiling]:
        """By mixture, how far choosing among its members' answers can go.

        Every sample of a member counts as an answer. Empty for graded scores.
        """
        if not self.questions or self._is_graded:
            return {}
        return {
            mixture: Ceiling.of(
                [
                    any(score for name in members for score in q.answers[name].scores)
                    for q in self.questions
                ],
                self._best_of(members),
            )
            for mixture, members in self.members.items()
            if members
        }

    def _best_of(self, names: Sequence[str]) -> float:
        return max(sum(self.scores(name)) for name in names) / len(self.questions)

    def realised(self, mixture: str) -> float | None:
        """Return which share of its headroom a mixture has used; None without any."""
        ceiling = self.ceilings.get(mixture)
        if ceiling is None or ceiling.headroom <= 0:
            return None
        gain = self._best_of([mixture]) - self._best_of(self.members[mixture])
        return gain / ceiling.headroom

    def rescued(self, mixture: str) -> list[Compared]:
        """Return the questions on which a mixture does better than the best model."""
        return [q for q in self.questions if self._gain(q, mixture) > 0]

    def broken(self, mixture: str) -> list[Compared]:
        """Return the questions on which it does worse."""
        return [q for q in self.questions if self._gain(q, mixture) < 0]

    @property
    def missed(self) -> list[Compared]:
        """The questions on which no candidate scores anything."""
        return [
            q for q in self.questions if not any(a.score for a in q.answers.values())
        ]

    def _gain(self, question: Compared, mixture: str) -> float:
        best = question.answers[self.best].score if self.best else 0.0
        return question.answers[mixture].score - best

    @property
    def records(self) -> list[dict[str, Any]]:
        """The single models' answers, for `choose` and `reliability`."""
        singles = self.of_kind("single")
        return [record_of(question, singles, self.keyed) for question in self.questions]

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """By candidate, the questions that have no answer, and why."""
        return {
            name: errors
            for name in self.kinds
            if (
                errors := {
                    question.id: error
                    for question in self.questions
                    if (error := question.answers[name].error) is not None
                }
            )
        }


def record_of(question: Compared, names: Sequence[str], keyed: bool) -> dict[str, Any]:
    """Return a question as a record; with answers where they have keys."""
    given: Mapping[str, Answer] = {name: question.answers[name] for name in names}
    record = {
        "question": question.id,
        "gold": question.gold,
        "scores": {name: answer.score for name, answer in given.items()},
    }
    if keyed:
        record["answers"] = {name: answer.key for name, answer in given.items()}
    return record


def _quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is no less than this share of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
