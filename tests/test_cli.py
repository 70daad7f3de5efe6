"""The command `langchain-mixture`."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from langchain_mixture.cli import main

FILE = """
from helper import right
from langchain_core.runnables import RunnableLambda
from langchain_mixture import Propose, Take

candidates = {"mix": [Propose(["a", "b"]), Take(1)]}
client = {name: RunnableLambda(lambda messages: "A", name=name) for name in "ab"}
score = right
"""
HELPER = "def right(example, answer):\n    return answer == example['gold']\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of candidates, a module beside it, and two questions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "helper.py").write_text(HELPER)
    rows = [{"input": "Why?", "gold": "A"}, {"input": "How?", "gold": "A"}]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


COMPARE = ["compare", "mine.py", "--examples", "questions.jsonl"]


def test_compare_prints_the_table_and_writes_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are kept beside, so that a second run asks nothing."""
    assert main([*COMPARE, "--html", "page.html", "--json", "found.json"]) == 0
    said = capsys.readouterr().out
    assert "mix: cannot tell" in said
    assert "4 calls were made" in said
    assert (folder / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads((folder / "found.json").read_text())["calls"] == 4
    assert (folder / "mine.answers.jsonl").is_file()
    assert main(COMPARE) == 0
    assert "0 calls were made" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "none.py", "--examples", "x.jsonl"], "there is no file 'none.py'"),
        (
            ["compare", "helper.py", "--examples", "x.jsonl"],
            "not define candidates and",
        ),
        (["compare", "mine.py", "--examples", "x.jsonl"], "there is no such file"),
        (["compare", "mine.py", "--examples", "mine.py"], "mine.py, line 2: Expecting"),
        ([*COMPARE, "--repeats", "0"], "repeats is 0"),
        ([*COMPARE, "--max-cost", "1"], "there is no price for: a, b"),
    ],
    ids=[
        "no file",
        "no candidates",
        "no questions",
        "no JSON",
        "no repeats",
        "no prices",
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """On the standard error, with the status 2."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"langchain-mixture: .*{re.escape(message)}.*\n", said)


def test_ctrl_c_ends_the_command_without_a_traceback(folder: Path) -> None:
    """With the status that a shell gives."""
    (folder / "mine.py").write_text("raise KeyboardInterrupt")
    assert main(COMPARE) == 130


def test_the_command_is_declared() -> None:
    """Installed, the package brings it."""
    (command,) = entry_points(group="console_scripts", name="langchain-mixture")
    assert command.load() is main
