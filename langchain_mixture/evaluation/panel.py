"""Which models to put into a panel, from answers that are recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

from langchain_mixture.evaluation.statistics import Interval, clopper_pearson

Records: TypeAlias = Sequence[Mapping[str, Any]] | str | Path
"""Rows `{"gold": answer, "answers": {agent: answer or None}}`, or a JSONL file of
them; a file that `compare` has saved is one, too."""

QUESTIONS: Final = 50
"""The fewest questions on which a panel is chosen."""
NEAR: Final = 0.8
"""The share of the best model's score that a member of a panel has at least."""
TRUSTED: Final = 0.65
"""The share of the others' median agreement that a member has at least."""
COPIES: Final = 0.92
"""The share of equal answers from which two agents are taken for copies."""
_SMALL: Final = 3
"""The fewest members that are worth a vote."""


@dataclass(frozen=True)
class Ceiling:
    """The most that choosing among the members' answers can reach."""

    missed: float
    """The share of the questions that no member has right."""
    interval: Interval
    """The 95 % interval of that share, by Clopper and Pearson."""
    headroom: float
    """The share that some member has right, and the best one alone has not."""

    @classmethod
    def of(cls, some_right: Sequence[object], best: float) -> Ceiling:
        """Work it out.

        Args:
            some_right: For each question, whether any member has it right.
            best: The best member's share of right answers.
        """
        n = len(some_right)
        missed = sum(not right for right in some_right)
        return cls(missed / n, clopper_pearson(missed, n), 1 - missed / n - best)


@dataclass(frozen=True)
class Panel:
    """Whom to ask, and in which order; `str()` says why."""

    members: list[str]
    """Names, best first."""
    scores: dict[str, float]
    """Of every agent, best first: its share of right answers, drawn to the mean."""
    gain: float | None
    """How much better than its best member the panel's plurality does on *these*
    questions. Optimistic: the panel was chosen on them. None where answers are not
    known, but only their scores."""
    ceiling: Ceiling
    """Of the members."""
    reason: str
    """Why these."""

    def __str__(self) -> str:
        low, high = self.ceiling.interval
        gain = (
            ""
            if self.gain is None
            else f"\nPlurality against {self.members[0]} alone: {self.gain:+.1%} on "
            "these questions. Optimistic: the panel was chosen on them."
        )
        return (
            f"{', '.join(self.members)}: {self.reason}.{gain}\n"
            f"No member is right on {self.ceiling.missed:.1%} [{low:.1%}, {high:.1%}]; "
            f"headroom over the best one: {self.ceiling.headroom:.1%}."
        )


def choose(records: Records, k: int = 5) -> Panel:
    """Choose a panel from recorded answers with gold: the best, and those near it.

    An agent's score is (right + 2 · mean) / (n + 2), where the mean is that of all
    agents; a missing answer is wrong. Agents with 0.8 of the best score or more become
    members, at most k, best first; ties go to the first in the order of the list. Where
    fewer than three are that good, the best one alone is chosen.

    Args:
        records: Answers to at least 50 questions, each with its `gold`; or a file that
            `compare` has saved.
        k: The most members.

    Raises:
        ValueError: There are fewer questions, or a row lacks what is needed.
        ImportError: scipy is missing; it comes with the extra `evaluation`.

    Example:
        >>> often = ["A"] * 45 + ["B"] * 5
        >>> rows = [
        ...     {"gold": "A", "answers": {"x": "A", "y": answer, "z": "A"}}
        ...     for answer in often
        ... ]
        >>> choose(rows).members
        ['x', 'z', 'y']
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k is {k!r}; allowed: a whole number, 1 or more")
    rows = read(records)
    rights = _rights(rows)
    n = len(rows)
    right = {agent: sum(of) for agent, of in rights.items()}
    mean = sum(right.values()) / (n * len(right))
    scores = {agent: (count + 2 * mean) / (n + 2) for agent, count in right.items()}
    ranked = sorted(scores, key=lambda agent: -scores[agent])
    near = [agent for agent in ranked if scores[agent] >= NEAR * scores[ranked[0]]]
    members, reason = near[:k], f"the best, and those with {NEAR} of its score or more"
    if len(members) < _SMALL:
        members = ranked[:1]
        reason = f"the best alone, as fewer than three have {NEAR} of its score"
    return Panel(
        members=members,
        scores={agent: scores[agent] for agent in ranked},
        gain=_gain(rows, members, right[members[0]]),
        ceiling=Ceiling.of(
            [any(row) for row in zip(*(rights[a] for a in members), strict=True)],
            right[members[0]] / n,
        ),
        reason=reason,
    )


def _gain(
    rows: Sequence[Mapping[str, Any]], members: Sequence[str], best: float
) -> float | None:
    if not all("answers" in row for row in rows):
        return None
    right: int = sum(
        plurality([row["answers"].get(agent) for agent in members]) == row["gold"]
        for row in rows
    )
    return (right - best) / len(rows)


@dataclass(frozen=True)
class Reliability:
    """Who can be trusted, as far as agreement shows it; `str()` says why."""

    scores: dict[str, float]
    """By agent: how often it agrees with the plurality of the others. Not a weight:
    weighing by agreement rewards those that copy."""
    dropped: list[str]
    """Agents that agree too seldom, in the order in which they were dropped."""
    merged: list[tuple[str, str]]
    """Pairs of copies, the kept agent first; together they have one vote."""
    members: list[str]
    """Who is left: neither dropped nor a copy of another."""
    reasons: list[str]
    """Why, a sentence for each that was dropped or merged."""

    def __str__(self) -> str:
        found = self.reasons or ["All members agree about as often as the others."]
        return "\n".join(
            [
                *found,
                "This cannot see two agents that collude in a panel of four or five.",
            ]
        )


def reliability(records: Records) -> Reliability:
    """Find members that cannot be trusted, and copies, without labels.

    Agents that give the same answer on 92 % of the questions or more are copies and get
    one vote. The score of an agent is how often it agrees with the plurality of the
    others. The lowest is dropped if it is under 0.65 of the median of the rest, and so
    on, down to three.

    Use the scores to drop, never to weigh: weighing by agreement rewards copies. Two
    agents that collude can pass as the majority in a panel of four or five.

    Args:
        records: Answers to at least 50 questions of at least four agents; `gold` may be
            missing.

    Raises:
        ValueError: There are fewer.

    Example:
        >>> rows = [
        ...     {"answers": {"x": "A", "y": "A" if i % 9 else "B", "z": "A" if i % 7
        ...      else "C", "v": "A" if i % 5 else "D", "liar": "E"}}
        ...     for i in range(50)
        ... ]
        >>> reliability(rows).dropped
        ['liar']
    """
    rows = read(records)
    if not all("answers" in row for row in rows):
        raise ValueError("reliability compares answers; the records have scores alone")
    answers = {
        agent: [row["answers"].get(agent) for row in rows] for agent in _agents(rows)
    }
    if len(answers) <= _SMALL:
        raise ValueError(f"there are {len(answers)} agents; allowed: four or more")
    groups, merged, reasons = _copies(answers)
    voting = list(groups)
    scores = _agreements(answers, voting)
    dropped: list[str] = []
    while len(voting) > _SMALL:
        now = _agreements(answers, voting)
        lowest = min(voting, key=lambda agent: now[agent])
        typical = median(now[agent] for agent in voting if agent != lowest)
        if now[lowest] >= TRUSTED * typical:
            break
        voting.remove(lowest)
        dropped += groups[lowest]
        reasons.append(
            f"{' and '.join(groups[lowest])} dropped: agrees with the plurality of the "
            f"others on {now[lowest]:.0%}; the median of the rest is {typical:.0%}."
        )
    scores |= _agreements(answers, voting)
    of = {copy: scores[kept] for kept, group in groups.items() for copy in group}
    return Reliability(
        scores={agent: of[agent] for agent in answers},
        dropped=dropped,
        merged=merged,
        members=voting,
        reasons=reasons,
    )


_Answers: TypeAlias = Mapping[str, Sequence[Any]]


def _copies(
    answers: _Answers,
) -> tuple[dict[str, list[str]], list[tuple[str, str]], list[str]]:
    """Put copies into groups, by the agent that is kept; name the pairs, and why."""
    groups = {agent: [agent] for agent in answers}
    merged: list[tuple[str, str]] = []
    reasons: list[str] = []
    for kept, copy in combinations(answers, 2):
        pairs = [
            (a, b)
            for a, b in zip(answers[kept], answers[copy], strict=True)
            if a is not None or b is not None
        ]
        share = sum(a == b for a, b in pairs) / max(1, len(pairs))
        if share >= COPIES and kept in groups and copy in groups:
            groups[kept] += groups.pop(copy)
            merged.append((kept, copy))
            reasons.append(
                f"{kept} and {copy} have one vote: they agree on {share:.0%}."
            )
    return groups, merged, reasons


def _agreements(answers: _Answers, voting: Sequence[str]) -> dict[str, float]:
    """Return how often each agrees with the plurality of the others."""
    agreed = dict.fromkeys(voting, 0)
    for given in zip(*(answers[agent] for agent in voting), strict=True):
        for place, agent in enumerate(voting):
            others = plurality([*given[:place], *given[place + 1 :]])
            agreed[agent] += others is not None and given[place] == others
    n = len(answers[voting[0]])
    return {agent: count / n for agent, count in agreed.items()}


def plurality(answers: Sequence[Any]) -> Any:
    """Return the answer that most give: None is no vote, ties go to the first.

    Example:
        >>> plurality(["B", None, "A", "A", "B"])
        'B'
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=lambda answer: counts[answer], default=None)


def read(records: Records) -> list[dict[str, Any]]:
    """Return records as rows, from rows or a file.

    Raises:
        ValueError: There are fewer than 50, or one is no record.
    """
    if isinstance(records, str | Path):
        records = _lines(Path(records))
    rows = [dict(row) for row in records]
    for place, row in enumerate(rows):
        if not isinstance(row.get("answers", row.get("scores")), Mapping):
            raise ValueError(
                f"records[{place}] has the keys {', '.join(map(str, row)) or 'none'}; "
                "allowed: gold and answers, a mapping from agents to answers"
            )
    if len(rows) < QUESTIONS:
        raise ValueError(
            f"there are {len(rows)} questions; allowed: {QUESTIONS} or more, as fewer "
            "tell good members from bad ones by luck"
        )
    return rows


def _lines(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    broken: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError:
            broken.append(number)
    if any("key" in row for row in rows):  # compare's: a kill may have cut a line off
        return list({row["question"]: row for row in rows if "scores" in row}.values())
    if broken:
        raise ValueError(f"{path}, line {broken[0]}: no JSON; allowed: a record a line")
    return rows


def _agents(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the agents, in the order in which they first appear."""
    return list(
        dict.fromkeys(
            agent for row in rows for agent in row.get("answers", row.get("scores", ()))
        )
    )


def _rights(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return what each agent has right; a record that has scores brings them."""
    for place, row in enumerate(rows):
        if "scores" not in row and row.get("gold") is None:
            raise ValueError(f"records[{place}] has no gold; choose needs the answers")
    return {
        agent: [
            float(row["scores"].get(agent, 0))
            if "scores" in row
            else float(row["answers"].get(agent) == row["gold"])
            for row in rows
        ]
        for agent in _agents(rows)
    }
