"""The clients that mixture-llm's users have, with the real packages, on loopback."""

import ast
import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

import langchain_mixture
from langchain_mixture import Aggregate, Propose, Step, Synthesize, run
from tests.openai_stub import Stub, serve

ROOT = Path(__file__).parent.parent
SEED = ROOT.parent / "shared" / "seed.md"
LITELLM = ROOT / ".venv-litellm" / "bin" / "python"


@pytest.fixture
async def make_openai() -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """Make OpenAI's own async clients, and close them in the end."""
    clients: list[openai.AsyncOpenAI] = []

    def make(*, base_url: str, api_key: str = "none") -> openai.AsyncOpenAI:
        clients.append(openai.AsyncOpenAI(base_url=base_url, api_key=api_key))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def complete(
    client: openai.AsyncOpenAI,
    model: str,
    messages: list[Any],
    temp: float,
    max_tokens: int,
) -> tuple[str | None, int, int]:
    """Ask an OpenAI-compatible API, as all of mixture-llm's clients do."""
    answer = await client.chat.completions.create(
        model=model, messages=messages, temperature=temp, max_tokens=max_tokens
    )
    assert answer.usage is not None
    usage = answer.usage
    text = answer.choices[0].message.content
    return text, usage.prompt_tokens, usage.completion_tokens


async def test_a_client_of_the_openai_sdk_serves_two_providers(
    make_openai: Callable[..., openai.AsyncOpenAI],
) -> None:
    """Each name goes to its own provider, with its key, temp and max_tokens."""
    with serve() as openai_stub, serve() as anthropic_stub:
        first = make_openai(base_url=openai_stub.url, api_key="key-of-openai")
        second = make_openai(base_url=anthropic_stub.url, api_key="key-of-anthropic")

        async def client(
            model: str, messages: list[Any], temp: float, max_tokens: int
        ) -> tuple[str | None, int, int]:
            chosen = second if model.startswith("claude") else first
            return await complete(chosen, model, messages, temp, max_tokens)

        pipeline = [
            Propose(["gpt-4o", "claude-sonnet-4-20250514", "gpt-4o-mini"]),
            Aggregate("claude-sonnet-4-20250514", temp=0.1, max_tokens=99),
        ]
        text, history = await run(pipeline, "What is an ion?", client)
        assert text == "claude-sonnet-4-20250514 answers"
        assert sorted(openai_stub.asked()) == ["gpt-4o", "gpt-4o-mini"]
        assert anthropic_stub.keys == ["Bearer key-of-anthropic"] * 2
        settings = [
            (r["temperature"], r["max_tokens"]) for r in anthropic_stub.requests
        ]
        assert settings == [(0.7, 2048), (0.1, 99)]
        calls = [call for row in history for call in row["llm_calls"]]
        assert {(c["in_tokens"], c["out_tokens"]) for c in calls} == {(10, 5)}


async def test_a_client_of_openrouter_runs_the_papers_layers(
    make_openai: Callable[..., openai.AsyncOpenAI],
) -> None:
    """One API for all models: names with a slash reach it as they are."""
    with serve() as stub:
        openrouter = make_openai(base_url=f"{stub.url.removesuffix('/v1')}/api/v1")

        async def client(
            model: str, messages: list[Any], temp: float, max_tokens: int
        ) -> tuple[str | None, int, int]:
            return await complete(openrouter, model, messages, temp, max_tokens)

        proposers = ["qwen/qwen-2.5-72b-instruct", "databricks/dbrx-instruct"]
        pipeline = [
            Propose(proposers, temp=0.7, max_tokens=512),
            Synthesize(proposers, temp=0.7, max_tokens=512),
            Aggregate("qwen/qwen-2.5-72b-instruct"),
        ]
        text, _ = await run(pipeline, "What is an ion?", client)
        assert text == "qwen/qwen-2.5-72b-instruct answers"
        assert len(stub.requests) == 5
        assert set(stub.paths) == {"/api/v1/chat/completions"}


def test_a_client_of_litellm_works_in_its_own_environment() -> None:
    """LiteLLM, which needs an older openai, is asked for real, by its own Python."""
    if not LITELLM.exists():
        pytest.skip("no .venv-litellm: `make test` makes it")
    with serve() as stub:
        done = subprocess.run(
            [LITELLM, "-m", "tests.litellm_program"],
            cwd=ROOT,
            env={
                **os.environ,
                "GROQ_API_BASE": stub.url,
                "GROQ_API_KEY": "none",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout.strip() == "llama-3.3-70b-versatile answers 30", done.stderr
        assert max(stub.asked()) == "qwen/qwen3-32b"


# -- The snippets of mixture-llm's README --------------------------------------------


def redirected(stub: Stub, clients: list[openai.AsyncOpenAI]) -> Any:
    """Make an AsyncOpenAI that asks the stub, whatever its base URL says."""
    real = openai.AsyncOpenAI

    def make(*, base_url: str = "", api_key: str = "none") -> openai.AsyncOpenAI:
        clients.append(real(base_url=stub.url, api_key=api_key))
        return clients[-1]

    return make


async def test_every_snippet_of_mixture_llms_readme_runs_with_the_import_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pipelines, clients and calls mean the same here."""
    if not SEED.exists():
        pytest.skip("the README of mixture-llm is not beside this project")
    blocks = re.findall(r"```python\n(.*?)```", SEED.read_text(), re.DOTALL)
    assert len(blocks) >= 10
    names = {n: getattr(langchain_mixture, n) for n in langchain_mixture.__all__}
    for key in ("ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(key, "none")
    clients: list[openai.AsyncOpenAI] = []
    with serve() as stub:
        make = redirected(stub, clients)
        monkeypatch.setattr(openai, "AsyncOpenAI", make)
        monkeypatch.setitem(sys.modules, "litellm", _litellm(make()))

        async def my_client(
            model: str, messages: list[Any], temp: float, max_tokens: int
        ) -> tuple[str | None, int, int]:
            return await complete(make(), model, messages, temp, max_tokens)

        space: dict[str, Any] = {**names, "os": os, "my_client": my_client}
        ran = 0
        for block in blocks:
            code = block.replace("mixture_llm", "langchain_mixture")
            if code.rstrip().endswith("(response_text, input_tokens, output_tokens)"):
                code += "    ..."  # a signature without a body
            before = dict(space)
            await _exec(code, space)
            new = [v for k, v in space.items() if k not in before]
            *_, client = my_client, *filter(inspect.iscoroutinefunction, new)
            for name, value in space.items():
                is_new = before.get(name) is not value
                if is_new and isinstance(value, list) and isinstance(value[0], Step):
                    text, _ = await run(value, "What is an ion?", client)
                    assert text.endswith("answers")
                    ran += 1
        assert ran >= 9
        assert space["result"] == "gpt-4o answers"
    for client in clients:
        await client.close()


def _litellm(client: openai.AsyncOpenAI) -> types.ModuleType:
    module = types.ModuleType("litellm")

    async def acompletion(model: str, **kwargs: Any) -> Any:
        name = model.removeprefix("groq/")
        return await client.chat.completions.create(model=name, **kwargs)

    module.acompletion = acompletion  # type: ignore[attr-defined]
    return module


async def _exec(code: str, space: dict[str, Any]) -> None:
    """Run code that may await at its top level."""
    compiled = compile(code, "<block>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, space)
    if result is not None:
        await result
