"""compare: ask every candidate every question, once, and keep what is paid for."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from langchain_mixture import Client
from langchain_mixture.evaluation.asking import Asking, Once
from langchain_mixture.evaluation.candidates import Candidate, Candidates, Plan
from langchain_mixture.evaluation.comparison import Comparison
from langchain_mixture.evaluation.estimate import Estimate, equal_budget_of
from langchain_mixture.evaluation.examples import (
    Example,
    Examples,
    Question,
    is_dataset,
    read_examples,
)
from langchain_mixture.evaluation.found import Answer, Compared, Kind, record_of
from langchain_mixture.evaluation.identity import name_of
from langchain_mixture.evaluation.langsmith import upload
from langchain_mixture.evaluation.needs import needed
from langchain_mixture.evaluation.progress import Progress
from langchain_mixture.evaluation.scores import Scored
from langchain_mixture.evaluation.scoring import Scoring
from langchain_mixture.evaluation.store import Store
from langchain_mixture.prices import Prices, check_prices, price_of

logger = logging.getLogger("langchain_mixture")

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
    options = _Options(
        client=client, repeats=repeats, cluster=cluster, equal_budget=equal_budget,
        save=save, prices=prices, max_calls=max_calls, max_cost=max_cost,
        concurrency=concurrency, progress=progress,
    )  # fmt: skip
    comparing = _Comparing(candidates, examples, score, options)
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
    options = _Options(
        client=client, repeats=repeats, cluster=cluster, equal_budget=equal_budget,
        save=save, prices=prices, max_calls=max_calls, max_cost=max_cost,
        concurrency=concurrency, progress=progress,
    )  # fmt: skip
    comparing = _Comparing(candidates, examples, score, options)
    return await comparing.run()


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The keyword arguments of `compare`."""

    client: Client
    repeats: int
    cluster: str | Callable[[Example], Any] | None
    equal_budget: bool
    save: str | Path | None
    prices: Prices | None
    max_calls: int | None
    max_cost: float | None
    concurrency: int
    progress: bool

    def __post_init__(self) -> None:
        for name in ("repeats", "concurrency"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} is {count!r}; allowed: a whole number >= 1")
        check_prices(self.prices)


class _Comparing:
    """One comparison under way."""

    def __init__(
        self,
        candidates: Candidates,
        examples: Examples,
        score: Scored,
        options: _Options,
    ) -> None:
        needed("scipy.stats")  # before anything is paid
        self.progress = Progress(shown=options.progress)
        self.ended = threading.Event()
        self._options = options
        self._plan = Plan(candidates, options.client)
        self._questions = read_examples(examples, options.cluster)
        self._dataset = str(examples) if is_dataset(examples) else None
        self._store = Store(
            None if options.save is None else Path(options.save),
            prices=options.prices,
            concurrency=options.concurrency,
            max_calls=options.max_calls,
            max_cost=options.max_cost,
        )
        self._scoring = Scoring(score, self._plan, options.client, self._store)
        self._check_prices()
        self._check_identities()
        self._asking = Asking(self._store, options.repeats, options.concurrency)
        self._arms: list[Candidate] = []
        self._answers: dict[str, dict[str, Answer]] = {}

    def _check_prices(self) -> None:
        slots = [slot for c in self._plan.candidates.values() for slot in c.slots]
        agents = [slot.single.agent for slot in slots]
        agents += [self._scoring.judge.agent] if self._scoring.judge else []
        names = sorted({name_of(agent) for agent in agents})
        unpriced = [n for n in names if price_of(self._options.prices, None, n) is None]
        if self._options.max_cost is not None and unpriced:
            raise ValueError(
                f"max_cost is {self._options.max_cost}, and there is no price for: "
                f"{', '.join(unpriced)}. Give each one in prices."
            )

    def _check_identities(self) -> None:
        alike = sorted(self._plan.identities.alike)
        if self._options.save is not None and alike:
            raise ValueError(
                f"several agents look the same ({', '.join(alike)}), so that saved "
                "answers could be given to another one; give each a name, such as "
                '.with_config(run_name="…")'
            )

    async def run(self) -> Comparison:
        """Ask, and return what was found."""
        options = self._options
        estimate = Estimate.of(
            self._plan,
            self._questions,
            self._store,
            options.repeats,
            options.prices,
            arms=options.equal_budget,
        )
        self.progress.begin(str(estimate), len(self._questions))
        try:
            everyone = list(self._plan.candidates.values())
            await self._asking.all(self._questions, everyone, self._done)
            if options.equal_budget and self._answers:
                await self._equal_budget()
        finally:
            await self._store.close()
            self.progress.end()
            self.ended.set()
        found = self.result()
        if self._dataset is not None:
            await self._to_langsmith(found, self._dataset)
        return found

    async def _done(self, question: Question, asked: dict[str, list[Once]]) -> None:
        """Score a question's answers, and save the scores."""
        answers = self._answers.get(question.id, {}) | {
            name: await self._scoring.answer(name, question, onces)
            for name, onces in asked.items()
        }
        self._answers[question.id] = answers
        singles = [each.name for each in self._plan.singles]
        compared = self._compared(question)
        self._store.record(record_of(compared, singles, self._scoring.is_keyed))
        self.progress.advance(self._store.calls, self._store.spent)

    async def _equal_budget(self) -> None:
        """Ask the best single model as often as each mixture asks."""
        best = self.result().best
        single = self._plan.candidates[best].single if best else None
        if single is None:
            return
        for mixture in self._plan.mixtures:
            samples, tail = equal_budget_of(mixture)
            step = replace(single.step, agents=[single.agent] * samples)
            arm = mixture.model.model_copy(update={"steps": [step, *tail]})
            name = f"{best} x{samples} ({mixture.name})"
            self._arms.append(self._plan.mixed(name, arm))
        asked = [each for each in self._questions if each.id in self._answers]
        self.progress.begin("The equal budgets.", len(asked))
        await self._asking.all(asked, self._arms, self._done)

    async def _to_langsmith(self, found: Comparison, dataset: str) -> None:
        try:
            await asyncio.to_thread(upload, found, dataset)
        except Exception as error:  # noqa: BLE001  # the answers are paid for
            why = f"LangSmith has no feedback: {type(error).__name__}: {error}"
            found.notes.append(why)
            logger.warning(why)

    def _compared(self, question: Question) -> Compared:
        return Compared(
            question.id,
            question.text,
            self._scoring.gold(question),
            question.cluster,
            self._answers[question.id],
        )

    def result(self) -> Comparison:
        """Return what was found so far: the questions that all candidates answered."""
        kinds: dict[str, Kind] = {
            name: "mixture" if each.is_mixture else "single"
            for name, each in self._plan.candidates.items()
        }
        # The equal budgets come last; before their first answer they are left out.
        arms = [arm.name for arm in self._arms]
        if any(arms and arms[-1] in answers for answers in self._answers.values()):
            kinds |= dict.fromkeys(arms, "equal budget")
        complete = [
            self._compared(question)
            for question in self._questions
            if kinds.keys() <= self._answers.get(question.id, {}).keys()
        ]
        return Comparison(
            questions=complete,
            kinds=kinds,
            members={each.name: each.members for each in self._plan.mixtures},
            calls=self._store.calls,
            spent=self._store.spent if self._options.prices else None,
            left=len(self._questions) - len(complete),
            stopped=self._store.stopped,
            agreed=self._scoring.agreed,
            keyed=self._scoring.is_keyed,
            clustered=self._options.cluster is not None,
        )


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
