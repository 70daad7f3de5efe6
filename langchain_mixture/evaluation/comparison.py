"""What a comparison found, shown and written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langchain_mixture.evaluation.found import Found
from langchain_mixture.evaluation.page import page
from langchain_mixture.evaluation.table import as_group, as_text


class Comparison(Found):
    """Verdicts, and all that they rest on.

    `print` shows a table, a notebook a page; `.html(path)` and `.json(path)` write it
    to a file.
    """

    def json(self, path: str | Path) -> None:
        """Write everything to a file of JSON."""
        whole = {
            "verdicts": {name: asdict(v) for name, v in self.verdicts.items()},
            "rows": self.rows,
            "ceilings": {name: asdict(c) for name, c in self.ceilings.items()},
            "calls": self.calls,
            "spent": self.spent,
            "left": self.left,
            "stopped": self.stopped,
            "judge_agreed": self.agreed,
            "questions": [asdict(question) for question in self.questions],
        }
        text = json.dumps(whole, ensure_ascii=False, indent=1, default=str)
        Path(path).write_text(text, encoding="utf-8")

    def html(self, path: str | Path) -> None:
        """Write the page to one file that needs no network."""
        Path(path).write_text(page(self), encoding="utf-8")

    def _repr_html_(self) -> str:
        return page(self, whole=False)

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Any:
        return as_group(self)
