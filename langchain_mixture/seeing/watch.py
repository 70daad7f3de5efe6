"""watch: a run in the terminal while it goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from langchain_mixture.running.events import NAME
from langchain_mixture.seeing.needs import needed

_WATCHER: ContextVar[Any] = ContextVar("mixture_watch", default=None)
# Core adds the handler that the variable holds to every run that begins.
register_configure_hook(_WATCHER, inheritable=True)


def _rich(module: str) -> Any:
    return needed(f"rich.{module}", "watch", "watch")


@contextmanager
def watch(console: Any = None) -> Iterator[None]:
    """Show the runs of mixtures inside a block while they go on.

    A terminal shows the agents of each step, what each of them does, its seconds and
    tokens, and the answer as it is written. Where there is no terminal, as in a pipe,
    and in a notebook, each event is a line.

    Args:
        console: The rich `Console` to write to; None = one for standard error.

    Raises:
        ImportError: The package rich is not installed (extra `watch`).

    Example:
        ```python
        from langchain_mixture import ChatMixture, self_moa, watch

        model = ChatMixture(self_moa("openai:gpt-4o"))
        with watch():
            model.invoke("What is an ion?")
        ```
    """
    if console is None:
        console = _rich("console").Console(file=sys.stderr)
    watcher = _Watcher(console)
    token = _WATCHER.set(watcher)
    try:
        with watcher.shown():
            yield
    finally:
        _WATCHER.reset(token)


LONGEST_LINE: Final = 200
"""Characters of a call's error in a line of its own."""

LONGEST_IN_COLUMN: Final = 30
"""Characters of a call's error in a column."""


class _Run:
    """What is known of one run."""

    def __init__(self, began: dict[str, Any]) -> None:
        self.began = began
        self.steps: dict[str, dict[tuple[int, int], dict[str, Any]]] = {
            step["name"]: {} for step in began["steps"]
        }
        """The calls of each step, by their place and their attempt."""
        self.ended: set[str] = set()
        """The steps that have ended."""
        self.answer = ""
        """What the answering model has written so far."""
        self.said = ""
        """How the run ended; empty while it goes on."""

    def call(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what is known of an event's call."""
        place = int(event["call"].rpartition("/")[2]), event["attempt"]
        calls = self.steps.setdefault(event["step"], {})
        return calls.setdefault(place, {"asked": event["time"], "reply": None})


class _Watcher(BaseCallbackHandler):
    """Hears the events of runs, and shows them."""

    run_inline = True

    def __init__(self, console: Any) -> None:
        self._console = console
        self._runs: dict[str, _Run] = {}
        self._lock = threading.RLock()
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._steps: dict[UUID, str | None] = {}
        """The models' runs that go on, each with the mixture's step that asked it."""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the runs for the length of a block."""
        if not self._is_live:
            yield
            return
        live = _rich("live").Live
        with live(
            get_renderable=self._picture, console=self._console, refresh_per_second=8
        ):
            yield

    # -- Hearing -----------------------------------------------------------------------

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        if name != NAME:
            return
        with self._lock:
            self._hear(data)
            if not self._is_live:
                self._print(data)

    def _hear(self, data: dict[str, Any]) -> None:
        if data["event"] == "began":
            self._runs[data["run"]] = _Run(data)
        run = self._runs[data["run"]]
        if data["event"] == "asked":
            run.call(data).update(agent=data["agent"], asked=data["time"])
        elif data["event"] == "replied":
            run.call(data).update(agent=data["reply"]["agent"], reply=data["reply"])
        elif data["event"] == "kept":
            run.ended.add(data["step"])
            run.said = data["error"] or ""
            if data["result"] is not None:
                run.said, run.answer = data["result"]["status"], data["answer"].text

    def on_chat_model_start(
        self, *args: Any, run_id: UUID, metadata: Any = None, **kwargs: Any
    ) -> None:
        self._steps[run_id] = (metadata or {}).get("mixture_step")

    def on_llm_end(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._steps.pop(run_id, None)

    on_llm_error = on_llm_end

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        with self._lock:
            runs = [r for r in self._runs.values() if not (r.began["parent"] or r.said)]
            if len(runs) != 1 or not isinstance(token, str):
                return  # it cannot be told whose answer it is of
            step = self._steps.get(run_id)
            if step is None or step == list(runs[0].steps)[-1]:
                runs[0].answer += token

    # -- Showing -----------------------------------------------------------------------

    def _print(self, data: dict[str, Any]) -> None:
        run = self._runs[data["run"]]
        line = ""
        if data["event"] == "began":
            line = f"{data['name']}: {' → '.join(run.steps)}"
        elif data["event"] == "replied":
            answered, calls = _counts(run.steps[data["step"]].values())
            agent = data["reply"]["agent"]
            said = _said(run.call(data), time.time(), LONGEST_LINE)
            line = f"{data['step']}: {agent} {said} ({answered} of {calls} answered)"
        elif run.said and data["event"] == "kept":
            seconds = data["time"] - run.began["time"]
            line = f"{run.began['name']}: {run.said} after {seconds:.1f} s"
        if line:
            indent = "  " if data["parent"] else ""
            self._console.print(f"{indent}{line}", markup=False, highlight=False)

    def _picture(self) -> Any:
        group = _rich("console").Group
        with self._lock:
            return group(*(self._of(run) for run in self._runs.values()))

    @property
    def _most_agents(self) -> int:
        """The agents of a step that are shown, so that the answer keeps its room."""
        height: int = self._console.height
        return max(3, (height - height // 4 - 7) // 2)

    def _of(self, run: _Run) -> Any:
        """Return the picture of one run: a column for each step, the answer below."""
        now = time.time()
        table = _rich("table").Table(
            box=None, expand=True, pad_edge=False, title_justify="left"
        )
        cells = []
        for outline in run.began["steps"]:
            calls = run.steps[outline["name"]]
            # A step that asks nobody takes no more room than its name.
            ratio = 1 if outline["agents"] else None
            table.add_column(_heading(outline, run), overflow="fold", ratio=ratio)
            ended = outline["name"] in run.ended
            cells.append(_cell(outline, calls, ended, now, self._most_agents))
        table.add_row(*cells)
        text = _rich("text").Text
        parts = [table]
        if run.answer:
            parts.append(text(_tail(run.answer, self._console), overflow="fold"))
        if run.said:
            style = "green" if run.said == "complete" else "yellow"
            parts.append(text(run.said, style=style))
        return _rich("panel").Panel(
            _rich("console").Group(*parts),
            title=text(run.began["name"]),
            title_align="left",
        )


def _heading(outline: dict[str, Any], run: _Run) -> Any:
    text = _rich("text").Text
    calls = run.steps[outline["name"]]
    heading = text(outline["name"], style="bold")
    answered, _ = _counts(calls.values())
    agents = len(outline["agents"])
    # Each has two lines, so that they stand side by side.
    heading.append(f"\n{answered} of {agents} answered" if agents else "\n ", "dim")
    return heading


def _cell(
    outline: dict[str, Any],
    calls: dict[tuple[int, int], dict[str, Any]],
    ended: bool,
    now: float,
    most: int,
) -> Any:
    """Return a line for each agent of a step."""
    cell = _rich("text").Text()
    waiting = [
        {"agent": agent}
        for index, agent in enumerate(outline["agents"])
        if (index, 0) not in calls and not ended
    ]
    lines = [*(calls[place] for place in sorted(calls)), *waiting]
    for call in lines[:most]:
        said = _said(call, now, LONGEST_IN_COLUMN)
        cell.append(f"{call.get('agent', '')} ")
        cell.append(f"{said}\n", _STYLES.get(said.partition(" ")[0], "dim"))
    if len(lines) > most:
        cell.append(f"and {len(lines) - most} more\n", "dim")
    if ended and not lines:
        cell.append("done", "dim")
    return cell


_STYLES: Final = {
    "answered": "green",
    "writing": "cyan",
    "failed": "red",
    "broken": "red",
    "given": "yellow",
}


def _said(call: dict[str, Any], now: float, longest: int) -> str:
    """Return what an agent does, or has done."""
    if "reply" not in call:
        return "waiting"
    reply = call["reply"]
    if reply is None:
        return f"writing {max(0.0, now - call['asked']):.1f} s"
    said = f"{reply['outcome']} {reply['time']:.1f} s"
    if tokens := reply["in_tokens"] + reply["out_tokens"]:
        said += f", {tokens:,} tokens"
    if reply["error"] and reply["outcome"] != "answered":
        said += f": {reply['error'][:longest]}"
    return said


def _counts(calls: Any) -> tuple[int, int]:
    """Return how many calls have answered, and how many there are."""
    known = list(calls)
    replies = [call["reply"] for call in known if call["reply"] is not None]
    return sum(reply["outcome"] == "answered" for reply in replies), len(known)


def _tail(text: str, console: Any) -> str:
    """Return the end of a text, as much as has room below the columns."""
    room = max(3, console.height // 4)
    lines = text.splitlines()[-room:]
    most = room * (console.width - 4)  # it stands in a frame
    return "\n".join(lines)[-most:]
