"""Between sync and async: threads that hold up neither an event loop nor the process.

A pool would be held up by the calls in it that are given up and hang.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


def begun(function: Callable[[], T]) -> Future[T]:
    """Call a function on a daemon thread of its own, in a copy of this context.

    Example:
        >>> begun(lambda: "done").result()
        'done'
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # nothing can cancel it from now on

    def work() -> None:
        try:
            outcome.set_result(function())
        except (StopIteration, asyncio.CancelledError) as error:
            # To whom waits these would mean something else: an end, its own end.
            told = RuntimeError(f"{type(error).__name__} was raised: {error}")
            told.__cause__ = error
            outcome.set_exception(told)
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    return outcome


async def in_thread(function: Callable[[], T]) -> T:
    """Wait on the event loop for a function that may be slow.

    Example:
        >>> asyncio.run(in_thread(lambda: "done"))
        'done'
    """
    return await asyncio.wrap_future(begun(function))


def wait_for(awaitable: Awaitable[T]) -> T:
    """Wait in sync code for an awaitable.

    All run on one event loop on a thread of its own: an async HTTP client belongs to
    the first loop that it meets, and the caller may have a loop running (notebooks).

    Example:
        >>> wait_for(asyncio.sleep(0, "done"))
        'done'
    """

    async def waiting() -> T:
        return await awaitable

    loop = _loop()
    if threading.current_thread() is loop.thread:  # waiting here would be for ever
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(asyncio.run, waiting()).result()
    return asyncio.run_coroutine_threadsafe(waiting(), loop.loop).result()


class _LoopThread:
    """An event loop that runs on a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="langchain-mixture", daemon=True
        )
        self.thread.start()


_loops: dict[int, _LoopThread] = {}


_loops_lock = threading.Lock()


def _loop() -> _LoopThread:
    """Give this process's loop: a fork has none of its parent's threads."""
    with _loops_lock:
        if os.getpid() not in _loops:
            _loops[os.getpid()] = _LoopThread()
        return _loops[os.getpid()]


if hasattr(os, "register_at_fork"):  # the lock may be held when the fork happens
    os.register_at_fork(
        before=_loops_lock.acquire,
        after_in_parent=_loops_lock.release,
        after_in_child=_loops_lock.release,
    )


@contextmanager
def interruptible(cancel: Callable[[], object]) -> Iterator[None]:
    """Call a function on Ctrl-C, before KeyboardInterrupt is raised, for a block.

    LangGraph waits for its branches before any code of ours sees the interrupt
    (langgraph 1.2.24), so something must end them first. As in `asyncio.Runner`, only
    on the main thread and in the place of Python's own handler. `test_interrupt.py`
    holds it.

    Args:
        cancel: Takes no lock, as it may interrupt who holds that lock.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        cancel()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
