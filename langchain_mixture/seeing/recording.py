"""Recording: a callback handler that keeps what a run asked, heard and kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from langchain_mixture.errors import InvalidMixtureError, counted, shown
from langchain_mixture.prices import Prices, check_prices
from langchain_mixture.running.events import NAME, MixtureEvent
from langchain_mixture.seeing.page import framed
from langchain_mixture.seeing.recorded import (
    Ending,
    RecordedRun,
    Stored,
    packed,
    runs_of,
    unpacked,
)

FORMAT: Final = "langchain-mixture recording 1"


class Recording(BaseCallbackHandler):
    """Records runs: the messages of every call, every reply, what each step kept.

    It is a callback handler, for a `ChatMixture`, a graph, or an agent around them;
    mixtures inside others and several runs at once are recorded too. A run that raised
    or was cancelled is recorded to its end. What looks like a provider's key is taken
    out of what is written.

    Args:
        prices: What tokens cost; see `create_mixture`. Given, each call has its cost.

    Raises:
        InvalidMixtureError: The prices cannot be used.

    Example:
        ```python
        from langchain_mixture import ChatMixture, Recording, self_moa

        recording = Recording()
        model = ChatMixture(self_moa("openai:gpt-4o"))
        model.invoke("What is an ion?", config={"callbacks": [recording]})
        print(recording.runs[0]["calls"][0]["messages"])
        ```
    """

    run_inline = True  # else core hands each event to a thread, at 80 µs
    ignore_retriever = True

    def __init__(self, prices: Prices | None = None) -> None:
        if prices is not None:
            check_prices(prices)
        self._prices = prices
        self._saved: list[RecordedRun] = []
        self._events: list[MixtureEvent] = []
        self._parents: dict[UUID, UUID | None] = {}
        """LangChain's runs that go on, each with the one around it."""
        self._names: dict[UUID, str] = {}
        """The names of those around which there is none."""
        self._graphs: dict[UUID, str] = {}
        """The runs of mixtures' graphs that go on, each with the mixture's run."""
        self._roots: dict[str, tuple[str, str]] = {}
        self._endings: dict[str, Ending] = {}

    # -- Hearing -----------------------------------------------------------------------

    def on_custom_event(
        self, name: str, data: Any, *, run_id: UUID, **kwargs: Any
    ) -> None:
        if name != NAME:
            return
        self._events.append(data)
        if data["event"] == "began":
            self._graphs[self._parents.get(run_id) or run_id] = data["run"]
            root = run_id
            while (around := self._parents.get(root)) is not None:
                root = around
            self._roots[data["run"]] = (str(root), self._names.get(root, ""))

    def on_chain_start(
        self,
        *args: Any,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._parents[run_id] = parent_run_id
        if parent_run_id is None:
            self._names[run_id] = name or ""

    on_chat_model_start = on_llm_start = on_tool_start = on_chain_start

    def on_chain_end(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None)

    on_llm_end = on_tool_end = on_chain_end

    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._end(run_id, error)

    on_llm_error = on_tool_error = on_chain_error

    def _end(self, run_id: UUID, error: BaseException | None) -> None:
        self._parents.pop(run_id, None)
        self._names.pop(run_id, None)
        if (run := self._graphs.pop(run_id, None)) is not None:
            self._endings[run] = Ending.of(time.time(), error)

    # -- Telling -----------------------------------------------------------------------

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs as plain data, in the order in which they began."""
        events = list(self._events)  # others may be heard meanwhile
        endings = dict(self._endings)
        return [*self._saved, *runs_of(events, self._roots, endings, self._prices)]

    def clear(self) -> None:
        """Forget the runs recorded so far, such as those of earlier questions."""
        self._saved.clear()
        self._events.clear()
        self._roots.clear()
        self._endings.clear()

    def json(self, path: str | PathLike[str]) -> None:
        """Write the runs to a file, each text once; `load` reads it."""
        Path(path).write_text(_written(self.runs), encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Recording:
        """Return the recording that a file holds.

        Raises:
            InvalidMixtureError: The file is no recording.
            OSError: The file cannot be read.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            found = data["format"]
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidMixtureError(
                f"{Path(path)} is no recording; allowed: a file that Recording.json "
                "has written."
            ) from error
        if found != FORMAT:
            raise InvalidMixtureError(
                f"{Path(path)} has the format {shown(found)}; allowed: {FORMAT!r}."
            )
        recording = cls()
        recording._saved = unpacked(data["runs"], data["once"])
        return recording

    def html(self, path: str | PathLike[str]) -> None:
        """Write the runs to a page: one file that needs no network.

        Raises:
            ImportError: The package jinja2 is not installed (extra `report`).
        """
        Path(path).write_text(self._page(), encoding="utf-8")

    def _page(self) -> str:
        # Here, as it would add a hundredth to the import of the package.
        from langchain_mixture.seeing.report import report

        runs = self.runs
        return report(runs, _written(runs))

    def _repr_html_(self) -> str | None:
        """Return the page for a notebook, in a frame of its own."""
        try:
            page = self._page()
        except ImportError:
            return None
        return framed(page)

    def __repr__(self) -> str:
        runs = self.runs
        calls = sum(len(run["calls"]) for run in runs)
        return f"Recording({counted(len(runs), 'run')}, {counted(calls, 'call')})"


def _written(runs: Sequence[RecordedRun]) -> str:
    """Return runs as JSON, each text once."""
    stored: Stored = {}
    shown_once = packed(list(runs), stored)
    data = {"format": FORMAT, "once": list(stored), "runs": shown_once}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
