"""The evaluation as its users meet it: names, imports, docs."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import langchain_mixture
from langchain_mixture import Propose, evaluation
from tests.models import models
from tests.test_package import blocks, openai_on_loopback

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "langchain_mixture" / "evaluation").glob("*.py"))

__all__ = ["openai_on_loopback"]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_it_is_built_on_the_public_names_alone(module: Path) -> None:
    """It imports what every user can, itself, and what draws the package's pages."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "langchain_mixture":
            names = {alias.name for alias in node.names}
            assert names <= {*langchain_mixture.__all__}
        elif isinstance(node, ast.ImportFrom) and node.module:
            own = node.module.startswith("langchain_mixture")
            rooms = ("evaluation", "prices", "seeing")
            public = tuple(f"langchain_mixture.{room}" for room in rooms)
            assert not own or node.module.startswith(public)


def test_importing_it_needs_no_extra() -> None:
    """The packages of the extra are imported when they are used."""
    program = (
        "import sys; sys.modules |= dict.fromkeys(['scipy', 'rich', 'numpy']); "
        "import langchain_mixture.evaluation, langchain_mixture.cli"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("package", ["scipy", "rich"])
def test_a_missing_package_costs_nothing(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is missed before the first call, and the error says what to install."""
    for module in (package, f"{package}.stats", f"{package}.console"):
        monkeypatch.setitem(sys.modules, module, None)
    client = models("a")
    with pytest.raises(ImportError, match=rf"{package}.*the extra `evaluation`"):
        evaluation.compare(
            {"mix": [Propose(["a"])]},
            [{"input": "Why?"}],
            lambda example, answer: True,
            client=client,
        )
    assert client["a"].asked == []


@pytest.mark.parametrize("name", evaluation.__all__)
def test_every_name_is_documented(name: str) -> None:
    """Functions show how they are called; classes say what their fields are."""
    thing = getattr(evaluation, name)
    doc = inspect.getdoc(thing)
    assert doc
    assert "Example:" in doc or inspect.isclass(thing)


@pytest.mark.parametrize("name", evaluation.__all__)
def test_every_block_in_a_docstring_runs(
    name: str, openai_on_loopback: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An example in a docstring is one that works."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(inspect.getdoc(getattr(evaluation, name)) or ""):
        exec(compile(block, name, "exec"), {"__name__": name})
