"""How far a comparison is: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Any, Final

from langchain_mixture.evaluation.needs import needed

_LINES: Final = 10
"""How many plain lines a comparison writes, about."""


class Progress:
    """Shows how many questions are done, on the standard error."""

    def __init__(self, *, shown: bool) -> None:
        self._console: Any = needed("rich.console").Console(stderr=True)
        self._shown = shown
        self._bar: Any = None
        self._task: Any = None
        self._total = 0
        self._done = 0

    def begin(self, about: str, total: int) -> None:
        """Say what will be asked, and begin to count."""
        self.end()
        self._total, self._done = total, 0
        if not self._shown:
            return
        self._console.print(about, highlight=False, soft_wrap=True)
        if self._console.is_terminal:
            rich = needed("rich.progress")
            self._bar = rich.Progress(
                rich.BarColumn(), rich.MofNCompleteColumn(), rich.TextColumn(
                    "{task.description}"
                ), rich.TimeRemainingColumn(), console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total)
            self._bar.start()

    def advance(self, calls: int, spent: float) -> None:
        """Count a question."""
        self._done += 1
        said = f"{calls:,} calls" + (f", ${spent:,.2f}" if spent else "")
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=said)
        elif self._shown and self._done % max(1, self._total // _LINES) == 0:
            self._console.print(
                f"{self._done} of {self._total} questions, {said}", highlight=False
            )

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, found: Any) -> None:
        """Print what was found, on the standard output."""
        needed("rich.console").Console().print(found)
