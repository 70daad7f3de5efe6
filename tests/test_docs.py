"""The pages as their readers use them: code, outputs, links, the site."""

import ast
import asyncio
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import langchain_mixture
from langchain_mixture import conditions, evaluation
from tests.test_package import openai_on_loopback

__all__ = ["openai_on_loopback"]

ROOT = Path(__file__).parent.parent
PAGES = [
    str(path.relative_to(ROOT))
    for folder in (ROOT, ROOT / "docs", ROOT / "examples")
    for path in sorted(folder.glob("*.md"))
]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
"""A block of code, and behind it what it prints, where the page shows that."""
OLLAMA = "http://localhost:11434/v1"
"""The server of the pages that ask a model on the reader's machine."""
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!ENV", ""))


def with_code() -> list[str]:
    """Return the pages that have a block of Python."""
    return [page for page in PAGES if BLOCK.search((ROOT / page).read_text())]


@pytest.mark.parametrize("page", with_code())
def test_every_block_of_a_page_runs_and_prints_what_is_shown(
    page: str,
    openai_on_loopback: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The blocks run, one after the other, as a reader would run them in a notebook."""
    monkeypatch.chdir(tmp_path)  # some write files
    space: dict[str, Any] = {"__name__": page}
    for code, shown in BLOCK.findall((ROOT / page).read_text()):
        code = code.replace(OLLAMA, os.environ["OPENAI_BASE_URL"])  # noqa: PLW2901  # as a reader with another server would
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        running = eval(compile(code, page, "exec", flags=flags), space)
        if inspect.iscoroutine(running):
            asyncio.run(running)
        printed = capsys.readouterr().out
        assert not shown or printed.strip() == shown.strip()


def titles(page: Path) -> set[str]:
    """Return the names by which links reach a page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    names = {re.sub(r"[^\w\- ]", "", title.lower()) for title in headings}
    objects = set(re.findall(r"(?m)^::: (\S+)", page.read_text()))
    return {name.replace(" ", "-") for name in names} | objects


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A relative link names a file that exists, and a heading that is in it."""
    path = ROOT / page
    text = re.sub(r"(?s)```.*?```", "", path.read_text())
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = (path.parent / file) if file else path
        assert target.is_file(), file
        if heading:
            assert heading in titles(target), f"{file}#{heading}"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_installs_is_there_before_the_first_release(page: str) -> None:
    """A command to paste installs the clone, and not a package that may not be out."""
    shell = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    installed = re.findall(r"pip install (\S+)", "".join(shell))
    assert all(what.startswith(('".[', '"langgraph-cli[')) for what in installed)


def test_the_readme_quotes_what_was_measured() -> None:
    """The comparison that it shows stands in the page of figures, word for word."""
    (shown,) = re.findall(r"(?s)```text\n(.*?)```", (ROOT / "README.md").read_text())
    assert shown in (ROOT / "docs" / "quality.md").read_text()


# -- The site ------------------------------------------------------------------------


def pages_of(nav: Any) -> list[str]:
    """Return the pages of a navigation, or of a part of one."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def test_every_page_is_on_the_site_and_in_llms_txt() -> None:
    """Nothing is left out of the navigation; llms.txt has a line for each page."""
    (llms,) = [
        p["llmstxt"]
        for p in SITE["plugins"]
        if "llmstxt" in p and "sections" in p["llmstxt"]
    ]
    described = {
        page: line
        for section in llms["sections"].values()
        for entry in section
        for page, line in entry.items()
    }
    assert sorted(pages_of(SITE["nav"])) == sorted(PAGES) == sorted(described)
    assert all(described.values())


def test_the_reference_has_every_public_name() -> None:
    """Each name of each public module is rendered once."""
    shown = re.findall(r"(?m)^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text())
    public = {f"langchain_mixture.{name}" for name in langchain_mixture.__all__}
    for module in (conditions, evaluation):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    assert len(shown) == len(set(shown))
    assert public - {"langchain_mixture.conditions.Condition"} <= set(shown)


# -- Examples ------------------------------------------------------------------------


def test_the_index_has_every_example() -> None:
    """One line for each program; all but the demo and its model are short."""
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    index = (ROOT / "examples" / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+\.py)\)", index)) == examples
    for name in examples - {"demo.py", "local_model.py"}:
        lines = (ROOT / "examples" / name).read_text().splitlines()
        assert len(lines) < 40, name
