"""Scoring the answers of a comparison, by a function or a judge."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_mixture import Client
from langchain_mixture.evaluation.asking import Once
from langchain_mixture.evaluation.candidates import Plan, Run, Single, answer_of
from langchain_mixture.evaluation.examples import Question
from langchain_mixture.evaluation.found import Answer
from langchain_mixture.evaluation.scores import (
    Judged,
    Matches,
    Scored,
    Unreadable,
    scored,
)
from langchain_mixture.evaluation.store import Asked, Refused, Store


class Scoring:
    """Scores answers. A judge is asked through the store, so that it is paid once."""

    def __init__(self, score: Scored, plan: Plan, client: Client, store: Store) -> None:
        if not callable(score):
            raise ValueError("score is no function; allowed: one of (example, answer)")
        self._score = score
        self._store = store
        self.judge: Single | None = None
        if isinstance(score, Judged):
            own = score.client or client
            (slot,) = plan.alone("the judge", score.model, own).slots
            judge = self.judge = slot.single
            self._warn_of_members(plan, judge)
            self._score = replace(score, ask=partial(self._ask, judge), agreed=[])

    def _warn_of_members(self, plan: Plan, judge: Single) -> None:
        for each in plan.singles:
            if each.single and each.single.identity == judge.identity:
                warnings.warn(
                    f"the judge is {each.name!r}, which is compared: judges prefer "
                    "their own answers",
                    stacklevel=5,
                )

    @property
    def agreed(self) -> float | None:
        """How often the judge agreed with itself; None without one."""
        agreed = self._score.agreed if isinstance(self._score, Judged) else []
        return sum(agreed) / len(agreed) if agreed else None

    def gold(self, question: Question) -> Any:
        """Return the gold answer, to be shown."""
        name = self._score.gold if isinstance(self._score, Matches) else "gold"
        return question.example.get(name)

    async def answer(
        self, name: str, question: Question, onces: Sequence[Once]
    ) -> Answer:
        """Return a candidate's answer with its scores; raises what the score raises."""
        scores, errors = [], []
        for once in onces:
            score, error = await self._scored(name, question, once)
            scores.append(score)
            errors += [] if error is None else [error]
        calls = [asked for once in onces for asked in once.calls]
        costs = [self._store.cost(asked) for asked in calls]
        known = [cost for cost in costs if cost is not None]
        n = len(onces)
        return Answer(
            text=onces[0].text,
            scores=scores,
            key=self._key(onces[0]),
            seconds=sum(once.seconds for once in onces) / n,
            calls=len(calls) / n,
            tokens=sum(map(_tokens, calls)) / n,
            cost=sum(known) / n if len(known) == len(costs) else None,
            error=errors[0] if errors else None,
            reasons=[reason for once in onces for reason in once.reasons],
        )

    async def _scored(
        self, name: str, question: Question, once: Once
    ) -> tuple[float, str | None]:
        if once.error is not None:
            return 0.0, once.error
        try:
            return await scored(self._score, question.example, once.text), None
        except Unreadable as failure:
            return 0.0, str(failure)
        except Refused:
            raise
        except Exception as failure:
            failure.add_note(
                f"raised by the score of candidate {name!r} on the example "
                f"{question.id!r}"
            )
            raise

    def _key(self, once: Once) -> Any:
        if once.error is not None or not isinstance(self._score, Matches):
            return None
        return self._score.key(once.text)

    @property
    def is_keyed(self) -> bool:
        """Whether answers have keys."""
        return isinstance(self._score, Matches)

    async def _ask(
        self, judge: Single, talk: Sequence[BaseMessage], sample: int
    ) -> str:
        run = Run(self._store, "the judge", 1, {}, lambda: None)
        try:
            return str((await answer_of(judge.alone(sample), talk, run)).text)
        except Exception as failure:
            if run.refused:
                raise Refused from failure
            raise Unreadable(f"the judge failed: {failure}") from failure


def _tokens(asked: Asked) -> int:
    usage = asked.usage
    return int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))
