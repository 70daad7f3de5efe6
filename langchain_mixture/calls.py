"""Asking one agent, sync and async: whatever happens becomes a recorded reply.

Only cancellation and LangGraph's own control flow (interrupts) pass through.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from langgraph.errors import GraphBubbleUp

from langchain_mixture.limits import Latch, Limit
from langchain_mixture.nesting import detached
from langchain_mixture.records import Reply
from langchain_mixture.reply import Record
from langchain_mixture.request import Question
from langchain_mixture.threads import begun


def ask(
    attempts: Sequence[Question], config: RunnableConfig, latch: Latch
) -> list[Reply]:
    """Ask a question, and its fallbacks in turn until one answers."""
    replies: list[Reply] = []
    for question in attempts:
        replies.append(_ask(question, config, latch))
        if replies[-1]["outcome"] != "failed":
            break
    return replies


async def aask(
    attempts: Sequence[Question], config: RunnableConfig, latch: Latch
) -> list[Reply]:
    """Do what `ask` does, on the event loop."""
    replies: list[Reply] = []
    for question in attempts:
        replies.append(await _aask(question, config, latch))
        if replies[-1]["outcome"] != "failed":
            break
    return replies


def ask_all(
    questions: Sequence[Sequence[Question]], config: RunnableConfig, latch: Latch
) -> list[Reply]:
    """Ask several questions at once, each with its fallbacks."""
    if len(questions) < 2:  # the caller's thread will do
        return [r for attempts in questions for r in ask(attempts, config, latch)]
    with get_executor_for_config(config) as executor:
        asked = executor.map(lambda attempts: ask(attempts, config, latch), questions)
        return [reply for replies in asked for reply in replies]


async def aask_all(
    questions: Sequence[Sequence[Question]], config: RunnableConfig, latch: Latch
) -> list[Reply]:
    """Do what `ask_all` does, on the event loop."""
    gate = asyncio.Semaphore(config.get("max_concurrency") or max(1, len(questions)))

    async def one(attempts: Sequence[Question]) -> list[Reply]:
        async with gate:
            return await aask(attempts, config, latch)

    tasks = [asyncio.ensure_future(one(attempts)) for attempts in questions]
    try:
        return [reply for replies in await asyncio.gather(*tasks) for reply in replies]
    finally:
        for task in tasks:  # where one was interrupted
            task.cancel()


def _ask(question: Question, config: RunnableConfig, latch: Latch) -> Reply:
    limit = Limit(question.timeout, question.ends, latch)
    record = Record(question, config, limit.tick)
    if (why := _unasked(question, latch)) is not None:
        return record.unasked(why)
    events: _Events = queue.SimpleQueue()

    def invoke() -> object:
        runnable, messages = question.prepared(config)
        agent_config = question.config(config, record.handlers)
        with detached():
            return runnable.invoke(messages, agent_config, **question.arguments())

    question.request.waiting.add(events)
    try:
        with _taken_down(record, latch, partial(events.put, None)):
            record.answered(_within(limit, invoke, events))
    finally:
        question.request.waiting.discard(events)
    return record.reply


async def _aask(question: Question, config: RunnableConfig, latch: Latch) -> Reply:
    limit = Limit(question.timeout, question.ends, latch)
    timer = asyncio.timeout(limit.left())
    loop = asyncio.get_running_loop()

    def wake() -> None:
        left = limit.left()
        if record.is_open and left is not None and not timer.expired():
            timer.reschedule(loop.time() + left)

    def tick() -> None:
        limit.tick()
        loop.call_soon_threadsafe(wake)  # a model may write in a thread of its own

    record = Record(question, config, tick)
    if (why := _unasked(question, latch)) is not None:
        return record.unasked(why)
    with _taken_down(record, latch, wake):
        try:
            async with timer:
                output = await _output(question, config, record)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("the agent was cancelled, and not the run") from error
        except Exception:
            if timer.expired():
                raise limit.error() from None
            raise
        record.answered(output)
    return record.reply


async def _output(question: Question, config: RunnableConfig, record: Record) -> object:
    runnable, messages = question.prepared(config)
    agent_config = question.config(config, record.handlers)
    arguments = question.arguments()
    with detached():
        return await runnable.ainvoke(messages, agent_config, **arguments)


@contextmanager
def _taken_down(
    record: Record, latch: Latch, wake: Callable[[], None]
) -> Iterator[None]:
    """Take part in a quorum; a call that fails is a record, not an end."""
    latch.enter(wake)
    try:
        yield
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, it is taken down
        record.failed(error)
    finally:
        record.is_open = False
        latch.leave(wake, answered=record.has_answer)


def _unasked(question: Question, latch: Latch) -> str | None:
    if latch.is_closed():
        return f"not asked: {latch.quorum} others had answered"
    if question.ends is not None and time.monotonic() >= question.ends:
        return "not asked: its share of the deadline was used up"
    return question.refused


_Events: TypeAlias = "queue.SimpleQueue[Future[Any] | None]"
"""What comes of a call; None where its limit has changed."""


def _within(limit: Limit, function: Callable[[], object], events: _Events) -> object:
    """Call a function, and give it up when its limit is reached.

    A call that is given up goes on, on a daemon thread that cannot hold the process.
    """
    begun(function).add_done_callback(events.put)
    while True:
        left = limit.left()
        longest = threading.TIMEOUT_MAX
        try:
            event = events.get(timeout=None if left is None else min(left, longest))
        except queue.Empty:
            if limit.left():  # a sign of life has moved it
                continue
            raise limit.error() from None
        if event is not None:
            return event.result()
