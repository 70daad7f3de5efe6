"""Asking one agent, sync and async: whatever happens becomes a recorded reply.

Only cancellation and LangGraph's interrupts pass through.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from langgraph.errors import GraphBubbleUp, ParentCommand

from langchain_mixture.callbacks import during
from langchain_mixture.compat import detached
from langchain_mixture.records import Reply
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.events import (
    atell_asked,
    atell_replied,
    tell_asked,
    tell_replied,
)
from langchain_mixture.running.handoffs import refused
from langchain_mixture.running.reply import Guard, Recorder
from langchain_mixture.running.routing import atold, told
from langchain_mixture.running.waiting import (
    WAIT,
    Quorum,
    StoppedError,
    Wait,
)
from langchain_mixture.threads import begun


def ask(
    attempts: Sequence[Attempt], config: RunnableConfig, quorum: Quorum
) -> list[Reply]:
    """Make a call: attempt one agent after the other until one answers."""
    replies: list[Reply] = []
    if question := quorum.about_saved:
        quorum.hear(told(question), of_saved=True)
    for attempt in attempts:
        gate = attempt.run.gate
        with gate.passed(attempt.index) if gate else nullcontext():
            recorder = _ask(attempt, config, quorum)
            replies.append(recorder.reply)
            tell_replied(attempt, recorder.reply, recorder.message, config)
            is_last = _is_last(replies, attempts)
            if question := quorum.take(replies[-1], is_last=is_last):
                quorum.hear(told(question))
        if is_last:
            break
    return replies


def _is_last(replies: Sequence[Reply], attempts: Sequence[Attempt]) -> bool:
    return replies[-1]["outcome"] != "failed" or len(replies) == len(attempts)


async def aask(
    attempts: Sequence[Attempt], config: RunnableConfig, quorum: Quorum
) -> list[Reply]:
    """Make a call as `ask` does, on the event loop."""
    replies: list[Reply] = []
    if question := quorum.about_saved:
        quorum.hear(await atold(question), of_saved=True)
    for attempt in attempts:
        recorder = await _aask(attempt, config, quorum)
        replies.append(recorder.reply)
        await atell_replied(attempt, recorder.reply, recorder.message, config)
        is_last = _is_last(replies, attempts)
        if question := quorum.take(replies[-1], is_last=is_last):
            quorum.hear(await atold(question))
        if is_last:
            break
    return replies


def ask_all(
    calls: Sequence[Sequence[Attempt]], config: RunnableConfig, quorum: Quorum
) -> list[Reply]:
    """Make several calls at once."""
    if len(calls) < 2:  # the caller's thread will do
        return [r for attempts in calls for r in ask(attempts, config, quorum)]
    with get_executor_for_config(config) as executor:
        asked = executor.map(lambda attempts: ask(attempts, config, quorum), calls)
        return [reply for replies in asked for reply in replies]


async def aask_all(
    calls: Sequence[Sequence[Attempt]], config: RunnableConfig, quorum: Quorum
) -> list[Reply]:
    """Make several calls at once, on the event loop."""
    gate = asyncio.Semaphore(config.get("max_concurrency") or max(1, len(calls)))

    async def one(attempts: Sequence[Attempt]) -> list[Reply]:
        async with gate:
            return await aask(attempts, config, quorum)

    if len(calls) < 2:  # no task of their own
        return [r for attempts in calls for r in await aask(attempts, config, quorum)]
    tasks = [asyncio.ensure_future(one(attempts)) for attempts in calls]
    try:
        return [reply for replies in await asyncio.gather(*tasks) for reply in replies]
    finally:
        for task in tasks:  # where one was interrupted
            task.cancel()


def _ask(attempt: Attempt, config: RunnableConfig, quorum: Quorum) -> Recorder:
    wait = Wait(attempt.timeout, attempt.ends, quorum, attempt.id)
    if attempt.run.is_left:
        raise asyncio.CancelledError
    recorder = Recorder(attempt, config, wait, wait.sign)
    if (why := _unasked(attempt, quorum)) is not None:
        return recorder.unasked(why)

    def invoke() -> object:  # on a thread of its own, in a copy of this context
        WAIT.set(wait)
        runnable, messages = attempt.prepared(config)
        if wait.is_over:  # before this thread began
            raise StoppedError("the call was given up")
        handlers = recorder.handlers and [Guard(wait), *recorder.handlers]
        agent_config = attempt.config(config, handlers)
        tell_asked(attempt, messages, config)
        with detached():
            return runnable.invoke(messages, agent_config, **attempt.arguments)

    # Unlike an event it can be told from a signal handler, whatever it interrupts.
    changed: queue.SimpleQueue[None] = queue.SimpleQueue()
    attempt.run.waits.add(wait)
    try:
        with _recorded(recorder, wait, lambda: changed.put(None)):
            recorder.answered(_within(wait, invoke, changed))
    finally:
        attempt.run.waits.discard(wait)
    return recorder


async def _aask(attempt: Attempt, config: RunnableConfig, quorum: Quorum) -> Recorder:
    wait = Wait(attempt.timeout, attempt.ends, quorum, attempt.id)
    timer = asyncio.timeout(wait.left())
    loop = asyncio.get_running_loop()

    def wake() -> None:
        left = wait.left()
        if not wait.is_over and left is not None and not timer.expired():
            timer.reschedule(loop.time() + left)

    def sign() -> None:
        wait.sign()
        loop.call_soon_threadsafe(wake)  # a model may write in a thread of its own

    recorder = Recorder(attempt, config, wait, sign)
    if (why := _unasked(attempt, quorum)) is not None:
        return recorder.unasked(why)
    with _recorded(recorder, wait, wake):
        try:
            async with timer:
                output = await _output(attempt, config, recorder)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("the agent was cancelled, and not the run") from error
        except Exception:
            if timer.expired():
                raise wait.error() from None
            raise
        recorder.answered(output)
    return recorder


async def _output(
    attempt: Attempt, config: RunnableConfig, recorder: Recorder
) -> object:
    runnable, messages = attempt.prepared(config)
    agent_config = attempt.config(config, recorder.handlers)
    arguments = attempt.arguments
    await atell_asked(attempt, messages, config)
    with detached(), during(WAIT, recorder.wait):
        return await runnable.ainvoke(messages, agent_config, **arguments)


@contextmanager
def _recorded(
    recorder: Recorder, wait: Wait, wake: Callable[[], None]
) -> Iterator[None]:
    """Wait for a call; one that fails is a record, and does not end the step."""
    wait.begin(wake)
    try:
        yield
    except ParentCommand as handoff:
        recorder.failed(refused(handoff))
    except GraphBubbleUp:  # an interrupt, for one
        raise
    except StoppedError as stop:
        model_error = stop.__cause__
        recorder.failed(
            model_error
            if isinstance(model_error, Exception)
            else RuntimeError(str(stop))
        )
    except Exception as error:  # noqa: BLE001  # whatever it is, it is recorded
        recorder.failed(error)
    finally:
        wait.end()


def _unasked(attempt: Attempt, quorum: Quorum) -> str | None:
    if quorum.is_closed():
        return f"not asked: {quorum.met}"
    if attempt.ends is not None and time.monotonic() >= attempt.ends:
        return "not asked: its share of the deadline was used up"
    return attempt.refused


def _within(
    wait: Wait, function: Callable[[], object], changed: queue.SimpleQueue[None]
) -> object:
    """Call a function, and give it up when its limit is reached.

    A call that is given up goes on, on a daemon thread that cannot hold the process.
    """
    answer = begun(function)
    answer.add_done_callback(lambda _: changed.put(None))
    while not answer.done():
        left = wait.left()
        if left == 0.0:
            raise wait.error()
        with suppress(queue.Empty):
            changed.get(
                timeout=None if left is None else min(left, threading.TIMEOUT_MAX)
            )
    return answer.result()
