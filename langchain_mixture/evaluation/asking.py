"""Asking every candidate every question, as many calls at once as are allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from langchain_mixture import InvalidMixtureError
from langchain_mixture.evaluation.candidates import AtHand, Candidate, Run, answer_of
from langchain_mixture.evaluation.examples import Question
from langchain_mixture.evaluation.store import Asked, Refused, Store

T = TypeVar("T")


@dataclass(frozen=True)
class Once:
    """What came of asking a candidate once."""

    text: str
    seconds: float
    calls: list[Asked]
    error: str | None = None
    reasons: Sequence[str] = ()
    """What went wrong on the way to an answer that is there all the same."""


Done: TypeAlias = Callable[[Question, dict[str, list[Once]]], Awaitable[None]]
"""Is given what a question came to, by candidate."""


class Asking:
    """Asks questions in their order; those that a limit cuts off are left out."""

    def __init__(self, store: Store, repeats: int, concurrency: int) -> None:
        self._store = store
        self._repeats = repeats
        self._concurrency = concurrency
        self._running: dict[str, list[Run]] = {}
        self._room = asyncio.Event()

    async def all(
        self, questions: Iterable[Question], candidates: Sequence[Candidate], done: Done
    ) -> None:
        """Ask all candidates; what `done` raises ends it."""
        tasks: set[asyncio.Task[None]] = set()
        calls = self._repeats * _calls_of(candidates)
        try:
            for question in questions:
                await self._until_room(calls, tasks)
                if self._store.stopped:
                    break
                self._running[question.id] = []
                asked = self._question(question, candidates, done)
                tasks.add(asyncio.create_task(asked))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_room(self, calls: int, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until fewer calls are ahead than may be in flight.

        More would queue up, and the time limits of mixtures run out in the queue.
        """
        while True:
            for task in [task for task in tasks if task.done()]:
                tasks.discard(task)
                task.result()
            made = (sum(len(r.calls) for r in runs) for runs in self._running.values())
            ahead = sum(max(1, calls - number) for number in made)
            if ahead < self._concurrency or not self._running:
                return
            self._room.clear()
            await self._room.wait()

    async def _question(
        self, question: Question, candidates: Sequence[Candidate], done: Done
    ) -> None:
        at_hand: AtHand = {}
        found: dict[str, list[Once]] = {}
        try:
            # The mixtures first: most answers of the single models are then at hand.
            for mixtures in (True, False):
                some = [each for each in candidates if each.is_mixture == mixtures]
                asked = (self._candidate(each, question, at_hand) for each in some)
                names = [each.name for each in some]
                found |= zip(names, await _all(asked), strict=True)
            await done(question, found)
        except Refused:
            return
        finally:
            self._running.pop(question.id)
            self._room.set()

    async def _candidate(
        self, candidate: Candidate, question: Question, at_hand: AtHand
    ) -> list[Once]:
        return await _all(
            self._once(candidate, question, number, sample, at_hand)
            for number in range(1, self._repeats + 1)
            for sample in sorted(candidate.samples)
        )

    async def _once(
        self,
        candidate: Candidate,
        question: Question,
        number: int,
        sample: int,
        at_hand: AtHand,
    ) -> Once:
        """Ask a candidate; a single model's answer may be at hand."""
        single = candidate.single
        model = candidate.model
        if single is not None:
            known = at_hand.get((number, single.by, sample))
            if known is not None and known.is_plain:
                return Once(known.text, known.seconds, [known])
            model = single.alone(sample)
        run = Run(self._store, question.id, number, at_hand, self._room.set)
        self._running[question.id].append(run)
        text, error = "", None
        reasons: list[str] = []
        try:
            message = await answer_of(model, question.conversation, run)
            text = message.text
            mixture = message.response_metadata["mixture"]
            reasons = mixture["reasons"] if mixture["status"] == "degraded" else []
        except InvalidMixtureError:
            raise
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is shown
            error = f"{type(failure).__name__}: {failure}"
        if run.refused:
            raise Refused
        calls = [asked for *_, asked in run.calls]
        return Once(text, run.seconds, calls, error, reasons)


async def _all(waiting: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all, also where one fails: what the others pay for is then saved."""
    found = await asyncio.gather(*waiting, return_exceptions=True)
    errors = [one for one in found if isinstance(one, BaseException)]
    for error in sorted(errors, key=lambda one: isinstance(one, Refused)):
        raise error
    return [one for one in found if not isinstance(one, BaseException)]


def _calls_of(candidates: Sequence[Candidate]) -> int:
    """Return how many calls a question takes; mixtures count those that they share."""
    slots = [slot for each in candidates if each.is_mixture for slot in each.slots]
    shared = {slot.single.by for slot in slots if slot.shared}
    singles = [each.single for each in candidates if each.single is not None]
    return len(slots) + sum(single.by not in shared for single in singles)
