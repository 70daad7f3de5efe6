"""compare: ask every candidate every question, once, and keep what is paid for."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from langchain_core.messages import BaseMessage

from langchain_mixture import Client, InvalidMixtureError
from langchain_mixture.evaluation.candidates import (
    AtHand,
    Candidate,
    Candidates,
    Plan,
    Run,
    answer_of,
)
from langchain_mixture.evaluation.comparison import (
    NO_KEY,
    Answer,
    Compared,
    Comparison,
    Kind,
    record_of,
)
from langchain_mixture.evaluation.estimate import Estimate, equal_budget_of
from langchain_mixture.evaluation.examples import (
    Example,
    Examples,
    Question,
    is_dataset,
    read_examples,
)
from langchain_mixture.evaluation.identity import name_of
from langchain_mixture.evaluation.langsmith import upload
from langchain_mixture.evaluation.money import Prices, check_prices, price_of
from langchain_mixture.evaluation.needs import needed
from langchain_mixture.evaluation.progress import Progress
from langchain_mixture.evaluation.scores import (
    Judged,
    Matches,
    Scored,
    Unreadable,
    scored,
)
from langchain_mixture.evaluation.store import Asked, Refused, Store

logger = logging.getLogger("langchain_mixture")

T = TypeVar("T")

CONCURRENCY: Final = 8
"""Calls in flight at once, where nobody says otherwise."""


def compare(
    candidates: Candidates,
    examples: Examples,
    score: Scored,
    *,
    client: Client = None,
    repeats: int = 1,
    cluster: str | Callable[[Example], Any] | None = None,
    equal_budget: bool = False,
    save: str | Path | None = None,
    prices: Prices | None = None,
    max_calls: int | None = None,
    max_cost: float | None = None,
    concurrency: int = CONCURRENCY,
    progress: bool = True,
) -> Comparison:
    """Ask every candidate the same questions, and say of each mixture whether it helps.

    The single models of each mixture are candidates, too: every agent of its steps with
    its step's settings, but for pure judges. The same question to the same model with
    the same settings is asked once, whatever number of candidates contain it, so that a
    mixture's proposals are its members' answers.

    Interrupted by Ctrl-C it prints what it has.

    Args:
        candidates: By name, a list of steps or a `ChatMixture`, which are mixtures; or
            the name of a model, or any other Runnable, which are single models.
        examples: Rows with `input`, a text or messages, and what the score needs; the
            path of a JSONL file of such rows; or the name of a LangSmith dataset.
        score: From an example and the text of an answer to a bool or a number; sync or
            async. `matches` and `judged` are ready.
        client: What turns names into models; see `create_mixture`.
        repeats: How often each candidate is asked each question; the scores are
            averaged within the question.
        cluster: A field of the examples, or a function of one: examples for which it is
            the same are related, and count as one observation.
        equal_budget: Whether the best single model is also sampled as often as each
            mixture calls, and the samples put together by the mixture's last step.
            These come last and take no part in the verdicts.
        save: A JSONL file. A line is added for each answer; a second run with the same
            file asks only what is not in it.
        prices: By model name, dollars per million tokens: `input`, `cached_read`,
            `cache_written`, `output`.
        max_calls: The most calls of this run.
        max_cost: The most dollars of this run; stops before the call that may pass it.
        concurrency: The most calls in flight at once.
        progress: Whether to show how far it is, on the standard error.

    Raises:
        ValueError: An argument cannot be used.
        InvalidMixtureError: A pipeline cannot be built.
        ImportError: The extra `evaluation` is not installed.

    Example:
        ```python
        from langchain_mixture import Aggregate, Propose
        from langchain_mixture.evaluation import compare, matches

        panel = [
            Propose(["openai:gpt-4o", "openai:gpt-4o-mini"]),
            Aggregate("openai:gpt-4o"),
        ]
        examples = [
            {"input": "What is 2 + 3? A number alone.", "gold": "5"},
            {"input": "What is 2 * 3? A number alone.", "gold": "6"},
        ]
        found = compare({"panel": panel}, examples, matches(str.strip))
        print(found)
        ```
    """
    comparing = _Comparing(
        candidates, examples, score, client=client, repeats=repeats, cluster=cluster,
        equal_budget=equal_budget, save=save, prices=prices, max_calls=max_calls,
        max_cost=max_cost, concurrency=concurrency, progress=progress,
    )  # fmt: skip
    future = asyncio.run_coroutine_threadsafe(comparing.run(), _loop())
    try:
        while not future.done():
            wait([future], timeout=0.2)  # on Windows Ctrl-C is heard between two waits
    except KeyboardInterrupt:
        future.cancel()
        comparing.ended.wait(10)
        comparing.progress.show(comparing.result())
        raise
    return future.result()


async def acompare(
    candidates: Candidates,
    examples: Examples,
    score: Scored,
    *,
    client: Client = None,
    repeats: int = 1,
    cluster: str | Callable[[Example], Any] | None = None,
    equal_budget: bool = False,
    save: str | Path | None = None,
    prices: Prices | None = None,
    max_calls: int | None = None,
    max_cost: float | None = None,
    concurrency: int = CONCURRENCY,
    progress: bool = True,
) -> Comparison:
    """Do what `compare` does, on the running event loop.

    Example:
        ```python
        import asyncio

        from langchain_mixture import self_moa
        from langchain_mixture.evaluation import acompare, matches

        examples = [{"input": "What is 2 + 3? A number alone.", "gold": "5"}]
        candidates = {"self": self_moa("openai:gpt-4o", samples=2)}
        found = asyncio.run(acompare(candidates, examples, matches(str.strip)))
        print(found.verdicts["self"])
        ```
    """
    comparing = _Comparing(
        candidates, examples, score, client=client, repeats=repeats, cluster=cluster,
        equal_budget=equal_budget, save=save, prices=prices, max_calls=max_calls,
        max_cost=max_cost, concurrency=concurrency, progress=progress,
    )  # fmt: skip
    return await comparing.run()


@dataclass(frozen=True)
class _Once:
    """What came of asking a candidate once."""

    text: str
    seconds: float
    calls: list[Asked]
    error: str | None = None
    reasons: tuple[str, ...] = ()


class _Comparing:
    """One comparison under way."""

    def __init__(
        self,
        candidates: Candidates,
        examples: Examples,
        score: Scored,
        *,
        client: Client,
        repeats: int,
        cluster: str | Callable[[Example], Any] | None,
        equal_budget: bool,
        save: str | Path | None,
        prices: Prices | None,
        max_calls: int | None,
        max_cost: float | None,
        concurrency: int,
        progress: bool,
    ) -> None:
        for name, count in (("repeats", repeats), ("concurrency", concurrency)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} is {count!r}; allowed: a whole number >= 1")
        if not callable(score):
            raise ValueError("score is no function; allowed: one of (example, answer)")
        needed("scipy.stats")  # before anything is paid
        check_prices(prices)
        self._plan = Plan(candidates, client)
        self._questions = read_examples(examples, cluster)
        self._dataset = str(examples) if is_dataset(examples) else None
        self._clustered = cluster is not None
        self._repeats = repeats
        self._equal_budget = equal_budget
        self._prices = prices
        self._concurrency = concurrency
        self._score = score
        self._judge: Candidate | None = None
        if isinstance(score, Judged):
            self._judge = self._plan.alone(
                "the judge", score.model, score.client or client
            )
            self._check_judge(self._judge)
            self._score = replace(score, ask=self._ask_judge, agreed=[])
        if save is not None and self._plan.identities.alike:
            names = ", ".join(sorted(self._plan.identities.alike))
            raise ValueError(
                f"several agents look the same ({names}), so that saved answers could "
                "be given to another one; give each a name, such as "
                '.with_config(run_name="…")'
            )
        self._check_prices(max_cost)
        path = None if save is None else Path(save)
        self._store = Store(path, prices=prices, concurrency=concurrency,
                            max_calls=max_calls, max_cost=max_cost)  # fmt: skip
        self._arms: list[Candidate] = []
        self._answers: dict[str, dict[str, Answer]] = {}
        self._running: dict[str, list[Run]] = {}
        self._room = asyncio.Event()
        self.progress = Progress(shown=progress)
        self.ended = threading.Event()

    def _check_judge(self, judge: Candidate) -> None:
        for single in self._plan.singles:
            if judge.single and single.single and (
                judge.single.identity == single.single.identity
            ):  # fmt: skip
                warnings.warn(
                    f"the judge is {single.name!r}, which is compared: judges prefer "
                    "their own answers",
                    stacklevel=4,
                )

    def _check_prices(self, max_cost: float | None) -> None:
        everyone = [*self._plan.candidates.values()]
        everyone += [self._judge] if self._judge else []
        names = {name for each in everyone for name in _agents(each)}
        unpriced = sorted(n for n in names if price_of(self._prices, n) is None)
        if max_cost is not None and unpriced:
            raise ValueError(
                f"max_cost is {max_cost}, and there is no price for: "
                f"{', '.join(unpriced)}. Give each one in prices."
            )

    # -- Running ---------------------------------------------------------------------

    async def run(self) -> Comparison:
        """Ask, and return what was found."""
        estimate = Estimate.of(self._plan, self._questions, self._store, self._repeats,
                               self._prices, arms=self._equal_budget)  # fmt: skip
        self.progress.begin(str(estimate), len(self._questions))
        try:
            await self._pass(list(self._plan.candidates.values()), whole=True)
            if self._equal_budget and self._answers:
                self._arms = self._equal_budget_arms()
                self.progress.begin("equal budget", len(self._answers))
                await self._pass(self._arms, whole=False)
        finally:
            await self._store.close()
            self.progress.end()
            self.ended.set()
        found = self.result()
        if self._dataset is not None:
            try:
                await asyncio.to_thread(upload, found, self._dataset)
            except Exception as error:  # noqa: BLE001  # the answers are paid for
                why = f"LangSmith has no feedback: {type(error).__name__}: {error}"
                found.notes.append(why)
                logger.warning(why)
        return found

    async def _pass(self, candidates: Sequence[Candidate], *, whole: bool) -> None:
        """Ask all questions in their order, as many at once as keeps the calls busy."""
        tasks: set[asyncio.Task[None]] = set()
        weight = self._repeats * _calls_of(candidates)
        try:
            for question in self._questions:
                if not whole and question.id not in self._answers:
                    continue
                await self._until_room(weight, tasks)
                if self._store.stopped:
                    break
                self._running[question.id] = []
                task = asyncio.create_task(self._question(question, candidates))
                tasks.add(task)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_room(self, weight: int, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until fewer calls are ahead than may be in flight.

        More would queue up, and the time limits of mixtures run out in the queue.
        """
        while True:
            for task in [task for task in tasks if task.done()]:
                tasks.discard(task)
                task.result()
            done = (sum(len(r.calls) for r in runs) for runs in self._running.values())
            ahead = sum(max(1, weight - calls) for calls in done)
            if ahead < self._concurrency or not self._running:
                return
            self._room.clear()
            await self._room.wait()

    async def _question(
        self, question: Question, candidates: Sequence[Candidate]
    ) -> None:
        at_hand: AtHand = {}
        try:
            mixtures = [each for each in candidates if each.is_mixture]
            singles = [each for each in candidates if not each.is_mixture]
            onces: dict[str, list[_Once]] = {}
            for some in (mixtures, singles):  # the singles' answers are then at hand
                asked = (self._candidate(each, question, at_hand) for each in some)
                for each, found in zip(some, await _all(asked), strict=True):
                    onces[each.name] = found
            answers = {
                each.name: await self._scored(each.name, question, onces[each.name])
                for each in candidates
            }
        except Refused:
            return  # the question is left
        finally:
            self._running.pop(question.id)
            self._room.set()
        self._answers.setdefault(question.id, {}).update(answers)
        self._store.record(record_of(self._compared(question), self._singles))
        self.progress.advance(self._store.calls, self._store.spent)

    async def _candidate(
        self, candidate: Candidate, question: Question, at_hand: AtHand
    ) -> list[_Once]:
        numbers = range(1, self._repeats + 1)
        asked = [
            self._once(candidate, question, number, sample, at_hand)
            for number in numbers
            for sample in sorted(candidate.samples)
        ]
        return await _all(asked)

    async def _once(
        self,
        candidate: Candidate,
        question: Question,
        number: int,
        sample: int,
        at_hand: AtHand,
    ) -> _Once:
        """Ask a candidate once; a single model's answer may be there already."""
        single = candidate.single
        known = None if single is None else at_hand.get((number, single.by, sample))
        if known is not None and known.is_plain:
            return _Once(known.text, known.seconds, [known])
        model = candidate.model
        if single is not None and sample > 1:
            model = single.alone(sample)
        run = self._new_run(question.id, number, at_hand)
        text, error, reasons = "", None, []
        try:
            message = await answer_of(model, question.conversation, run)
            text = message.text
            reasons = message.response_metadata["mixture"]["reasons"]
        except InvalidMixtureError:
            raise
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is shown
            error = f"{type(failure).__name__}: {failure}"
        if run.refused:
            raise Refused
        calls = [asked for *_, asked in run.calls]
        return _Once(text, run.seconds, calls, error, tuple(reasons))

    def _new_run(self, question: str, number: int, at_hand: AtHand) -> Run:
        run = Run(self._store, question, number, at_hand, self._room.set)
        self._running[question].append(run)
        return run

    # -- Scoring ---------------------------------------------------------------------

    async def _scored(
        self, name: str, question: Question, onces: Sequence[_Once]
    ) -> Answer:
        scores, errors = [], []
        for once in onces:
            value, error = 0.0, once.error
            if error is None:
                try:
                    value = await scored(self._score, question.example, once.text)
                except Unreadable as failure:
                    error = str(failure)
                except Refused:
                    raise
                except Exception as failure:
                    failure.add_note(
                        f"raised by the score of candidate {name!r} on the example "
                        f"{question.id!r}"
                    )
                    raise
            scores.append(value)
            errors += [] if error is None else [error]
        first = onces[0]
        calls = [asked for once in onces for asked in once.calls]
        costs = [self._store.cost(asked) for asked in calls]
        known = [cost for cost in costs if cost is not None]
        key: Any = NO_KEY
        if isinstance(self._score, Matches):
            key = None if first.error is not None else self._score.key(first.text)
        n = len(onces)
        return Answer(
            text=first.text,
            scores=scores,
            key=key,
            seconds=sum(once.seconds for once in onces) / n,
            calls=len(calls) / n,
            tokens=sum(map(_tokens, calls)) / n,
            cost=sum(known) / n if len(known) == len(costs) else None,
            error=errors[0] if errors else None,
            reasons=[reason for once in onces for reason in once.reasons],
        )

    async def _ask_judge(self, talk: Sequence[BaseMessage], sample: int) -> str:
        """Ask the judge through the store, so that it is paid once, too."""
        judge = self._judge
        if judge is None or judge.single is None:  # pragma: no cover
            raise RuntimeError("there is no judge")
        model = judge.model if sample == 1 else judge.single.alone(sample)
        run = Run(self._store, "the judge", 1, {}, self._room.set)
        try:
            return str((await answer_of(model, talk, run)).text)
        except Exception as failure:
            if run.refused:
                raise Refused from failure
            raise Unreadable(f"the judge failed: {failure}") from failure

    # -- The result ------------------------------------------------------------------

    @property
    def _singles(self) -> list[str]:
        return [each.name for each in self._plan.singles]

    def _compared(self, question: Question) -> Compared:
        gold = question.example.get("gold")
        if isinstance(self._score, Matches):
            gold = question.example.get(self._score.gold)
        answers = self._answers[question.id]
        return Compared(question.id, question.text, gold, question.cluster, answers)

    def result(self) -> Comparison:
        """Return what was found so far: the questions that all candidates answered."""
        kinds: dict[str, Kind] = {
            name: "mixture" if each.is_mixture else "single"
            for name, each in self._plan.candidates.items()
        }
        kinds |= dict.fromkeys((arm.name for arm in self._arms), "equal budget")
        complete = [
            self._compared(question)
            for question in self._questions
            if kinds.keys() <= self._answers.get(question.id, {}).keys()
        ]
        if not complete and self._arms:  # stopped before the first of their answers
            kinds = {
                name: kind for name, kind in kinds.items() if kind != "equal budget"
            }
            complete = [
                self._compared(q) for q in self._questions if q.id in self._answers
            ]
        agreed = self._score.agreed if isinstance(self._score, Judged) else []
        return Comparison(
            questions=complete,
            kinds=kinds,
            members={each.name: each.members for each in self._plan.mixtures},
            calls=self._store.calls,
            spent=self._store.spent if self._prices else None,
            left=len(self._questions) - len(complete),
            stopped=self._store.stopped,
            agreed=sum(agreed) / len(agreed) if agreed else None,
            clustered=self._clustered,
        )

    def _equal_budget_arms(self) -> list[Candidate]:
        best = self.result().best
        if best is None:
            return []
        single = self._plan.candidates[best].single
        if single is None:
            return []
        arms: dict[str, Candidate] = {}
        for mixture in self._plan.mixtures:
            samples, tail = equal_budget_of(mixture)
            step = replace(single.step, agents=[single.agent] * samples)
            name = f"{best} x{samples} ({mixture.name})"
            arm = mixture.model.model_copy(update={"steps": [step, *tail]})
            arms[name] = self._plan.mixed(name, arm)
        return list(arms.values())


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


def _agents(candidate: Candidate) -> list[str]:
    return [name_of(slot.single.agent) for slot in candidate.slots]


def _tokens(asked: Asked) -> int:
    usage: Mapping[str, Any] = asked.usage
    return int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))


_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of all comparisons of this process, on a thread of its own.

    An async HTTP client belongs to the first loop that it meets; and the caller may
    have a loop running (notebooks).
    """
    if os.getpid() not in _loops:  # a fork has none of its parent's threads
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="compare", daemon=True).start()
        _loops[os.getpid()] = loop
    return _loops[os.getpid()]
