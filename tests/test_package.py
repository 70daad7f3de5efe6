"""The package as its users meet it: names, types, docs."""

import ast
import inspect
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import distribution, packages_distributions, version
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from typing_extensions import is_typeddict

import langchain_mixture
from tests.openai_stub import able, serve

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "langchain_mixture"
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_all_names_what_is_public() -> None:
    """Everything in __all__ exists, once, and is all that a star brings."""
    names = langchain_mixture.__all__
    assert len(names) == len(set(names))
    public = {n for n in vars(langchain_mixture) if not n.startswith("_")}
    rooms = {path.stem for path in PACKAGE.iterdir()}
    assert public - rooms == set(names)
    assert version("langchain-mixture")


def required(package: str, *, extras: bool) -> set[str]:
    """Return the names of what an installed package depends on."""
    requires = distribution(package).requires or []
    return {
        re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")
        for line in requires
        if extras or "extra ==" not in line
    }


def test_the_hard_dependencies_are_langchain_core_langgraph_and_theirs() -> None:
    """Who has LangChain installs nothing more; the rest comes as an extra."""
    core = required("langchain-core", extras=False)
    hard = required("langchain-mixture", extras=False)
    assert hard - core == {"langchain-core", "langgraph"}


def test_what_the_package_imports_is_declared() -> None:
    """No import rests on what another package happens to bring."""
    declared = required("langchain-mixture", extras=True)
    providers = packages_distributions()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += (
                [a.name for a in node.names] if isinstance(node, ast.Import) else []
            )
            for root in {str(name).split(".")[0] for name in names}:
                if root not in {*sys.stdlib_module_names, "langchain_mixture"}:
                    owners = {
                        name.lower().replace("_", "-") for name in providers[root]
                    }
                    assert owners & declared, f"{path.name} imports {root}"


@pytest.mark.parametrize("name", langchain_mixture.__all__)
def test_every_public_name_is_documented_with_an_example(name: str) -> None:
    """Classes and functions tell what they are for, and show it."""
    thing = getattr(langchain_mixture, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    doc = inspect.getdoc(thing)
    assert doc
    if not is_typeddict(thing) and not issubclass_of_error(thing):
        assert "Example:" in doc


def issubclass_of_error(thing: Any) -> bool:
    """Tell whether a thing is an error class."""
    return inspect.isclass(thing) and issubclass(thing, Exception)


USERS_FILE = """
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langchain_mixture import (
    Aggregate, ChatMixture, Client, Filter, HistoryRow, Map, Propose, Rank, Refine,
    Shuffle, Step, StepFailedError, Usage, create_mixture, run, self_moa, together_moa,
)

async def client(
    model: str, messages: list[dict[str, str]], temp: float, max_tokens: int
) -> tuple[str, int, int]:
    return "text", 1, 2

steps: list[Step] = [
    Propose(["a", ChatOpenAI(model="gpt-4o").with_retry()], 0.7),
    Shuffle(seed=1),
    Filter(lambda text: len(text) > 3),
    Map(str.strip),
    Refine(["a"]),
    Rank("a", 2),
    Aggregate("a", fallbacks=["b"]),
]

def total_of(usage: Usage) -> int:
    return usage["total_tokens"]

def costs(history: list[HistoryRow]) -> list[int]:
    return [call["out_tokens"] for row in history for call in row["llm_calls"]]

def made(client: Client) -> str:
    return ChatMixture(steps, client=client).invoke("Why?").text

async def main() -> str:
    text, history = await run(steps, "Why?", client)
    total: int = sum(call["in_tokens"] for row in history for call in row["llm_calls"])
    await run([Propose(["a"]), Aggregate("a")], "Why?", {"a": ChatOpenAI()})
    graph = create_mixture(together_moa(), client=ChatOpenAI(), timeout=None)
    create_mixture(self_moa("a"), client=lambda name: ChatOpenAI(model=name))
    graph = create_mixture(steps, client=client, checkpointer=InMemorySaver())
    try:
        state = graph.invoke({"messages": [HumanMessage("Why?")]})
        state = await graph.ainvoke({"messages": [("user", "Why?")]})
        answer: str = state["messages"][-1].text + state["mixture"]["status"]
        total += total_of(state["mixture"]["usage"]) + len(costs(history))
        return answer + str(total)
    except StepFailedError as error:
        return error.responses[0]["text"]
"""


def test_a_users_file_passes_mypy_strict(tmp_path: Path) -> None:
    """The types say what users write: steps, clients, states, errors."""
    file = tmp_path / "user.py"
    file.write_text(USERS_FILE)
    # With the cache and the flags of `make lint`, 1 second instead of 40.
    flags = ["--strict", "--warn-unreachable", f"--cache-dir={ROOT / '.mypy_cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *flags, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


ROOMS = [
    {
        "records",
        "prices",
        "secrets",
        "errors",
        "threads",
        "callbacks",
        "compat",
        "runnables",
    },
    {"steps"},
    {"presets", "agents", "conditions"},
    {"options", "plan", "advice"},
    {"running"},
    {"graph", "estimates"},
    {"model"},
    {"chat", "middleware"},
    {"seeing"},
    {"__init__"},
    {"evaluation"},
    {"cli"},
]
"""The package's modules and folders, from the ground up."""


def imports() -> dict[str, set[str]]:
    """Give what each module of the package imports from it as it is loaded."""
    names = {".".join(p.relative_to(PACKAGE).parts)[:-3]: p for p in MODULES}

    def wanted(module: str, name: str) -> str:
        forms = (f"{module}.{name}", module)
        both = [form for f in forms for form in (f, f"{f}.__init__")]
        return next(form for form in both if form.strip(".") in names).strip(".")

    return {
        module: {
            wanted(node.module.partition(".")[2], alias.name)
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
            if node.module.partition(".")[0] == "langchain_mixture"
            for alias in node.names
        }
        for module, path in names.items()
    }


def test_imports_point_one_way() -> None:
    """A room imports only from those in front of it, and no two modules each other."""
    floor = {name: level for level, room in enumerate(ROOMS) for name in room}
    for module, wanted in imports().items():
        own = module.partition(".")[0]
        for other in wanted:
            room = other.partition(".")[0]
            assert room == own or floor[room] <= floor[own], f"{module} imports {other}"
    TopologicalSorter(imports()).prepare()  # raises where there is a circle


def test_steps_import_nothing_from_langgraph() -> None:
    """A step decides; it knows nothing of the graph that runs it."""
    for path in (PACKAGE / "steps").glob("*.py"):
        imported = [line for line in path.read_text().splitlines() if "import " in line]
        assert not any("langgraph" in line for line in imported), path


# -- Code in documents ---------------------------------------------------------------


def blocks(text: str) -> list[str]:
    """Give the Python blocks of a text."""
    return [
        inspect.cleandoc("\n" + block)
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ]


def sources() -> list[tuple[str, str]]:
    """Give every docstring of the package that has a Python block."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node)
                if doc and "```python" in doc:
                    found.append((f"{path.stem}.{node.name}", doc))
    return found


@pytest.fixture
def openai_on_loopback(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Send what goes to OpenAI to a stub."""
    with serve(able) as stub:
        for provider in ("OPENAI", "GROQ"):
            monkeypatch.setenv(f"{provider}_API_KEY", "none")
            monkeypatch.setenv(f"{provider}_BASE_URL", stub.url)
        yield stub


@pytest.mark.parametrize(("name", "doc"), sources(), ids=lambda v: v[:40])
def test_every_block_in_a_docstring_runs(
    name: str, doc: str, openai_on_loopback: Any
) -> None:
    """An example in a docstring is one that works."""
    for block in blocks(doc):
        exec(compile(block, name, "exec"), {"__name__": name})


def test_what_the_table_of_errors_quotes_is_what_the_code_says() -> None:
    """Every message in the docs' table stands in the source."""
    table = (ROOT / "docs" / "errors.md").read_text()
    source = "".join(path.read_text() for path in MODULES)
    plain = re.sub(r'"\s*\n\s*f?"', "", source)
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 25
    for quoted in re.findall(r"`([^`]+)`", " ".join(rows)):
        field = re.fullmatch(r"(\w+) is", quoted)
        known = f'"{field[1]}": ' in plain if field else False
        name = quoted in langchain_mixture.__all__
        assert known or name or quoted in plain, quoted


def test_the_map_names_what_exists() -> None:
    """Every path in ARCHITECTURE.md exists, and every name is in the source."""
    text = re.sub(r"(?s)```.*?```", "", (ROOT / "ARCHITECTURE.md").read_text())
    source = "".join(path.read_text() for path in MODULES)
    words = set(re.findall(r"\w+", source))
    quoted = re.findall(r"`([^`]+)`", text)
    paths = {name for name in quoted if re.fullmatch(r"[\w/]+(/|\.py|\.md)", name)}
    assert len(paths) > 20
    for path in paths:
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path
    for name in set(quoted) - paths:
        if re.fullmatch(r"[A-Za-z_][\w.]*", name):
            assert set(name.split(".")) <= words, name


def test_the_map_shows_every_room() -> None:
    """The drawing in ARCHITECTURE.md has each module and folder of the package."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawing = re.findall(r"(?s)```\n(.*?)```", text)[0]
    rooms = {p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    shown = {name.rstrip("/") for name in re.findall(r"[a-z_]+(?:/|\.py)", drawing)}
    assert shown == rooms - {"__init__.py", "__pycache__"}
    assert len(drawing.splitlines()) <= 25


def test_type_hints_can_be_resolved() -> None:
    """LangGraph and pydantic read annotations at run time; ours resolve."""
    for name in ("Response", "Call", "Reply", "Result"):
        assert get_type_hints(getattr(langchain_mixture, name))
