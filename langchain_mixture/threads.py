"""The bridge between sync and async code.

Each call gets a daemon thread. In a thread pool, calls that hang after they were given
up would occupy its workers and delay the exit of the process. A thread whose call has
ended takes the next one: a new thread costs 80 µs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

IDLE: Final = 10.0
"""Seconds after which a thread without work ends."""

Job: TypeAlias = Callable[[], Callable[[], None]]
"""Does its work, and returns what tells the outcome to the one who waits."""

_idle: deque[SimpleQueue[Job]] = deque()
"""The queues of the threads that have no work; the last one was busy last."""


def _start(job: Job) -> None:
    """Run a job on a daemon thread without work, or on a new one."""
    try:
        jobs = _idle.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), daemon=True).start()
    jobs.put(job)


def _work(jobs: SimpleQueue[Job]) -> None:
    while True:
        try:
            tell = jobs.get(timeout=IDLE)()
        except Empty:
            try:
                _idle.remove(jobs)
            except ValueError:  # pragma: no cover  # a race: it has just been taken
                continue
            return
        _idle.append(jobs)  # first: who is told may have the next job
        tell()
        del tell  # it would keep the outcome alive until the next job


def begun(function: Callable[[], T]) -> Future[T]:
    """Start a function on a daemon thread, in a copy of the current context.

    Example:
        >>> begun(lambda: "done").result()
        'done'
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # nothing can cancel it from now on

    def work() -> Callable[[], None]:
        try:
            return partial(outcome.set_result, function())
        except (StopIteration, asyncio.CancelledError) as error:
            # A waiter would misread these: exhaustion, or its own cancellation.
            wrapped = RuntimeError(f"{type(error).__name__} was raised: {error}")
            wrapped.__cause__ = error
            return partial(outcome.set_exception, wrapped)
        except BaseException as error:  # noqa: BLE001  # raised again by the future's result()
            return partial(outcome.set_exception, error)

    _start(partial(copy_context().run, work))
    return outcome


async def in_thread(function: Callable[[], T]) -> T:
    """Await a sync function that may be slow, without blocking the event loop.

    Example:
        >>> asyncio.run(in_thread(lambda: "done"))
        'done'
    """
    return await asyncio.wrap_future(begun(function))


def wait_for(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable in sync code.

    All awaitables run on one event loop in a separate thread, for two reasons: an async
    HTTP client only works on the loop that first used it, and the caller's thread may
    have a running loop already, as in a notebook.

    Example:
        >>> wait_for(asyncio.sleep(0, "done"))
        'done'
    """

    async def waiting() -> T:
        return await awaitable

    loop = _loop()
    # An async agent that calls sync code is on the loop's thread. To wait there for
    # the loop would be a deadlock.
    if threading.current_thread() is loop.thread:
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(asyncio.run, waiting()).result()
    return asyncio.run_coroutine_threadsafe(waiting(), loop.loop).result()


class _LoopThread:
    """An event loop and the daemon thread that runs it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="langchain-mixture", daemon=True
        )
        self.thread.start()


_loops: dict[int, _LoopThread] = {}


_loops_lock = threading.Lock()


def _loop() -> _LoopThread:
    """Return this process's loop. A fork inherits none of its parent's threads."""
    with _loops_lock:
        if os.getpid() not in _loops:
            _loops[os.getpid()] = _LoopThread()
        return _loops[os.getpid()]


# A lock that another thread holds during a fork would stay locked in the child.
if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has none
    os.register_at_fork(
        before=_loops_lock.acquire,
        after_in_parent=_loops_lock.release,
        after_in_child=_loops_lock.release,
    )
    os.register_at_fork(after_in_child=_idle.clear)  # the threads are the parent's


@contextmanager
def interruptible(cancel: Callable[[], object]) -> Iterator[None]:
    """Call `cancel` on Ctrl-C within a block, before KeyboardInterrupt is raised.

    Without it, LangGraph first waits for its branches, until their calls end
    (langgraph 1.2.24). `test_interrupt.py` holds it.

    Args:
        cancel: Must take no lock, which the interrupted code may hold.
    """
    # As in `asyncio.Runner`: only the main thread gets signals, and a handler that the
    # program has set itself stays in place.
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
