"""The command `langchain-mixture`."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    Example:
        >>> main(["compare", "none.py", "--examples", "questions.jsonl"])
        2
    """
    options = vars(_parser().parse_args(arguments))
    try:
        return _compare(**options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, ImportError) as error:  # an argument, or a missing package
        sys.stderr.write(f"langchain-mixture: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="langchain-mixture")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="ask all candidates the same questions, and say which mixture helps",
        description="FILE.py defines `candidates` and `score`, and may define `client` "
        "and `prices`; they are arguments of langchain_mixture.evaluation.compare. "
        "Answers are kept in a file, so that a second run asks only what is missing.",
    )
    add = compare.add_argument
    add("file", metavar="FILE.py", type=Path)
    add("--examples", required=True, help="a JSONL file, or a LangSmith dataset")
    add("--save", help="where answers are kept; default: FILE.answers.jsonl")
    add("--repeats", type=int, default=1, help="how often each question is asked")
    add("--cluster", help="the field by which examples are related")
    add("--equal-budget", action="store_true", help="also sample the best model alone")
    add("--max-calls", type=int, help="the most calls of this run")
    add("--max-cost", type=float, help="the most dollars of this run")
    add("--concurrency", type=int, default=8, help="the most calls in flight at once")
    add("--html", help="write a page to this file")
    add("--json", help="write everything to this file")
    return parser


def _compare(
    *, file: Path, html: str | None, json: str | None, save: str | None, **options: Any
) -> int:
    from langchain_mixture import evaluation

    given = _defined_in(file)
    found = evaluation.compare(
        save=save or file.with_suffix(".answers.jsonl").name, **given, **options
    )
    sys.stdout.write(f"{found}\n")
    for path, write in ((html, found.html), (json, found.json)):
        if path is not None:
            write(path)
            sys.stdout.write(f"Written: {path}\n")
    return 0


def _defined_in(file: Path) -> dict[str, Any]:
    """Run a user's file, and return what it defines for a comparison.

    Raises:
        ValueError: There is no such file, or it lacks `candidates` or `score`.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}")
    sys.path.insert(0, str(file.parent))  # as `python FILE.py` would
    try:
        names = runpy.run_path(str(file))
    finally:
        sys.path.remove(str(file.parent))
    missing = [name for name in ("candidates", "score") if name not in names]
    if missing:
        raise ValueError(f"{file} does not define {' and '.join(missing)}")
    wanted = ("candidates", "score", "client", "prices")
    return {name: names[name] for name in wanted if name in names}
