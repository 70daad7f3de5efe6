"""Asking conditions, and where a run goes on: behind all steps that one skips."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langgraph.errors import GraphBubbleUp

from langchain_mixture.conditions import agreed, decided, lead
from langchain_mixture.errors import shown
from langchain_mixture.records import HistoryRow, Response, row
from langchain_mixture.running.layer import Layer
from langchain_mixture.running.waiting import Question
from langchain_mixture.steps.base import Condition
from langchain_mixture.steps.program import conditions_of, name_of_condition
from langchain_mixture.threads import in_thread, wait_for


@dataclass(frozen=True)
class Route:
    """Where a run goes on after a step."""

    skipped: Sequence[tuple[Layer, str]] = ()
    """The steps that are skipped, each with the condition that is true, in words."""
    goes_to: Layer | None = None
    """The step that is next; None = the end."""
    error: Exception | None = None
    """The error of that step's condition; None = none was raised."""

    @property
    def ends(self) -> bool:
        """Whether no step is left."""
        return self.goes_to is None

    def rows(self, responses: Sequence[Response]) -> list[HistoryRow]:
        """Return the history rows of the skipped steps.

        Args:
            responses: Those that are passed on.
        """
        return [
            {
                **row(layer.step, layer.name, responses, [], None),
                "skipped": condition,
            }
            for layer, condition in self.skipped
        ]


def routed(layers: Sequence[Layer], responses: Sequence[Response]) -> Route:
    """Return where a run goes on, given the steps that are left."""
    questions = _questions(layers)
    try:
        condition = next(questions)
        while True:
            condition = questions.send(told(Question(condition, responses)))
    except StopIteration as end:
        return _route(end.value)


async def arouted(layers: Sequence[Layer], responses: Sequence[Response]) -> Route:
    """Do the same on an event loop."""
    questions = _questions(layers)
    try:
        condition = next(questions)
        while True:
            answer = await atold(Question(condition, responses))
            condition = questions.send(answer)
    except StopIteration as end:
        return _route(end.value)


def _route(value: Any) -> Route:
    route: Route = value
    return route


def _questions(
    layers: Sequence[Layer],
) -> Generator[Condition, bool | Exception, Route]:
    """Yield each condition that must be asked, once; return the route."""
    known: list[tuple[Condition, str]] = []
    """Those that were asked; the words are empty where one is not true."""
    skipped: list[tuple[Layer, str]] = []
    for layer in layers:
        for condition in conditions_of(layer.step):
            words = next((words for one, words in known if _same(one, condition)), None)
            if words is None:
                said = yield condition
                if isinstance(said, Exception):
                    return Route(skipped, layer, said)
                words = name_of_condition(condition) if said else ""
                known.append((condition, words))
            if words:
                skipped.append((layer, words))
                break
        else:
            return Route(skipped, layer)
    return Route(skipped)


def _same(one: Condition, other: Condition) -> bool:
    return one is other or one == other


def told(question: Question) -> bool | Exception:
    """Return a condition's answer, or the error that it raised."""
    try:
        answer: Any = question.ask()
        return _truth(wait_for(answer) if inspect.isawaitable(answer) else answer)
    except GraphBubbleUp:  # LangGraph's control flow, such as an interrupt
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, a step fails by name
        return error


async def atold(question: Question) -> bool | Exception:
    """Do the same on an event loop. A user's function may be slow: it gets a thread."""
    try:
        answer: Any
        if isinstance(question.condition, agreed | decided | lead):
            answer = question.ask()
        else:
            answer = await in_thread(partial(_asked, question))
        return _truth(await answer if inspect.isawaitable(answer) else answer)
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001  # as above
        return error


def _asked(question: Question) -> bool | Awaitable[bool]:
    return question.ask()


def _truth(answer: object) -> bool:
    if answer not in (True, False):
        raise TypeError(
            f"the condition returned {shown(answer)}; allowed: True or False"
        )
    return bool(answer)
