"""What it costs: usage in full, dollars, their limit, and the estimate before."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from langchain_mixture import (
    Aggregate,
    Analyze,
    ChatMixture,
    Cost,
    InvalidMixtureError,
    NoResponsesError,
    Propose,
    Rank,
    Refine,
    Response,
    StepFailedError,
    Synthesize,
    cost,
    create_mixture,
    estimate,
    run,
    self_moa,
)
from langchain_mixture.middleware import MixtureMiddleware
from langchain_mixture.running.state import MixtureOutput
from tests.models import KEY, Scripted, ask, called, models
from tests.openai_stub import Answer, serve
from tests.test_consult import Adviser, Loop, look
from tests.test_package import ROOT, blocks, openai_on_loopback

__all__ = ["openai_on_loopback"]

# -- Recorded conversations ----------------------------------------------------------

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "gpt-4o-audio-preview-2024-12-17",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi"},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 2000,
        "completion_tokens": 400,
        "total_tokens": 2410,
        "prompt_tokens_details": {"cached_tokens": 1500, "audio_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 250, "audio_tokens": 50},
    },
}
RESPONSES = {
    "id": "resp_1",
    "object": "response",
    "created_at": 0,
    "model": "gpt-5-2025-08-07",
    "status": "completed",
    "service_tier": "flex",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 600},
        "output_tokens": 100,
        "output_tokens_details": {"reasoning_tokens": 60},
        "total_tokens": 1100,
    },
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 100,
        "cache_read_input_tokens": 5000,
        "cache_creation_input_tokens": 500,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 300,
            "ephemeral_1h_input_tokens": 200,
        },
        "output_tokens": 50,
    },
}


@contextmanager
def replying(body: dict[str, Any]) -> Iterator[str]:
    """Serve one recorded answer to every request, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def openai(url: str) -> Any:
    """Return a model that speaks chat completions."""
    return ChatOpenAI(base_url=url, api_key=KEY, model="gpt-4o-audio-preview")


def responses(url: str) -> Any:
    """Return a model that speaks OpenAI's Responses API."""
    return ChatOpenAI(base_url=url, api_key=KEY, model="gpt-5", use_responses_api=True)


def azure(url: str) -> Any:
    """Return a model behind a deployment of Azure's."""
    return AzureChatOpenAI(
        azure_endpoint=url,
        api_key=KEY,
        azure_deployment="ours",
        api_version="2024-10-21",
    )


def anthropic(url: str) -> Any:
    """Return a model of Anthropic's; its package warns of names that grow old."""
    settings: Any = {"base_url": url, "api_key": KEY}
    return ChatAnthropic(model_name="claude-of-the-day", **settings)


AUDIO = {
    "gpt-4o-audio-preview": {
        "input": 2.5,
        "cached_read": 1.25,
        "output": 10.0,
        "audio_input": 40.0,
        "audio_output": 80.0,
    }
}
SONNET = {"input": 3.0, "cached_read": 0.3, "cache_written": 3.75, "output": 15.0}
RECORDED: dict[str, tuple[Any, dict[str, Any], Any, float]] = {
    "chat completions": (
        openai,
        CHAT,
        AUDIO,
        400 * 2.5 + 1500 * 1.25 + 100 * 40 + 100 * 10 + 250 * 10 + 50 * 80,
    ),
    "azure": (
        azure,
        CHAT,
        AUDIO,
        400 * 2.5 + 1500 * 1.25 + 100 * 40 + 100 * 10 + 250 * 10 + 50 * 80,
    ),
    "responses, flex": (
        responses,
        RESPONSES,
        {"gpt-5": {"input": 1.25, "cached_read": 0.125, "output": 10.0}},
        400 * 1.25 + 600 * 0.125 + 100 * 10,
    ),
    "anthropic, two kinds of cache": (
        anthropic,
        CLAUDE,
        {"anthropic:claude-sonnet-4-5": SONNET},
        100 * 3 + 5000 * 0.3 + 500 * 3.75 + 50 * 15,
    ),
}


@pytest.mark.parametrize("case", RECORDED)
async def test_a_recorded_conversation_costs_what_it_does_by_hand(case: str) -> None:
    """Cached, reasoning and audio tokens have their own prices, and count once."""
    make, body, prices, by_hand = RECORDED[case]
    with replying(body) as url:
        steps = [Propose([make(url)])]
        mixture = create_mixture(steps, prices=prices).invoke(ask())["mixture"]
        _, history = await run(steps, "What is an ion?")
    assert mixture["cost"]["total"] == pytest.approx(by_hand / 1e6, abs=1e-12)
    assert cost(history, prices).total == mixture["cost"]["total"]
    assert cost(mixture, prices).record() == mixture["cost"]
    (call,) = history[0]["llm_calls"]
    assert call["model_name"] == body["model"]
    assert mixture["cost"]["models"] == {body["model"]: mixture["cost"]["total"]}


@pytest.mark.parametrize(
    ("make", "body", "provider"),
    [
        (openai, CHAT, "openai"),
        (azure, CHAT, "azure"),
        (responses, RESPONSES, "openai"),
        (anthropic, CLAUDE, "anthropic"),
    ],
    ids=["chat completions", "azure", "responses", "anthropic"],
)
def test_the_history_names_the_model_and_the_provider(
    make: Any, body: dict[str, Any], provider: str
) -> None:
    """They are what the answer's own metadata says."""
    with replying(body) as url:
        message = make(url).invoke("Why?")
        history = create_mixture([Propose([make(url)])]).invoke(ask())["mixture"][
            "history"
        ]
    said = message.response_metadata
    call = history[0]["llm_calls"][0]
    assert call["model_name"] == said["model_name"] == body["model"]
    assert call.get("model_provider") == said.get("model_provider")
    assert said.get("model_provider") in (provider, "openai")


def test_usage_has_the_details_and_the_providers_own_total() -> None:
    """They are in the call, the step, the model, the total, and the message."""
    with replying(CHAT) as url:
        with pytest.warns(UserWarning, match="the last step"):
            model = ChatMixture([Propose([openai(url)] * 2)], report_usage=True)
        message = model.invoke("Why?")
    usage = message.response_metadata["mixture"]["usage"]
    for tokens in (usage, usage["steps"]["1_propose"], *usage["models"].values()):
        assert tokens["total_tokens"] == 2 * 2410
        assert tokens["input_token_details"] == {"audio": 200, "cache_read": 3000}
        assert tokens["output_token_details"] == {"audio": 100, "reasoning": 500}
    assert message.usage_metadata == {
        "input_tokens": 4000,
        "output_tokens": 800,
        "total_tokens": 4820,
        "input_token_details": {"audio": 200, "cache_read": 3000},
        "output_token_details": {"audio": 100, "reasoning": 500},
    }


@pytest.mark.parametrize(
    ("make", "body", "dollars"),
    [
        # Cache entries of an hour cost twice the input, those of five minutes 1.25.
        (anthropic, CLAUDE, 100 * 3 + 5000 * 0.3 + 300 * 3.75 + 200 * 6 + 50 * 15),
    ],
    ids=["anthropic"],
)
def test_without_prices_those_of_genai_prices_count(
    make: Any, body: dict[str, Any], dollars: float
) -> None:
    """The package needs no network, and its version is said."""
    with replying(body) as url:
        state = create_mixture([Propose([make(url)])], prices="genai-prices").invoke(
            ask()
        )
    found = cost(state["mixture"])
    assert found.total == pytest.approx(dollars / 1e6, abs=1e-12)
    assert found.source.startswith("genai-prices 0.")
    assert state["mixture"]["cost"] == found.record()


def test_a_model_that_genai_prices_does_not_list_has_no_price() -> None:
    """It is named; the cost of the run is not known."""
    state = create_mixture(
        [Propose(["mine"])], client=models("mine"), prices="genai-prices"
    ).invoke(ask())
    found = cost(state["mixture"])
    assert (found.total, found.unpriced) == (None, ("mine",))


def test_a_limit_in_dollars_needs_no_prices_where_the_package_has_them() -> None:
    """Those of genai-prices hold the limit, and tell the cost."""
    client = models("gpt-4o")
    state = create_mixture([Propose(["gpt-4o"])], client=client, max_cost=1.0).invoke(
        ask()
    )
    assert 0 < (cost(state["mixture"]).total or 0) < 0.001
    with pytest.raises(StepFailedError, match=r"\(max_cost\)"):
        create_mixture([Propose(["gpt-4o"])], client=client, max_cost=1e-9).invoke(
            ask()
        )
    assert len(client["gpt-4o"].asked) == 1


def test_without_genai_prices_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before any call, and also where a limit alone needs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    for options in ({"prices": "genai-prices"}, {"max_cost": 1.0}):
        with pytest.raises(InvalidMixtureError, match=r"langchain-mixture\[prices\]"):
            create_mixture([Propose(["a"])], client=models("a"), **options)


# -- Each call once ------------------------------------------------------------------

PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("a", "b", "c", "spare")}
EACH = (10 * 1 + 5 * 2) / 1e6  # ten tokens read and five written


def client(stub: Any, name: str, **fields: Any) -> Any:
    """Return a client of the stub."""
    fields = {"max_retries": 0, "stream_usage": True, **fields}
    return ChatOpenAI(base_url=stub.url, api_key=KEY, model=name, **fields)


def priced(state: Any) -> Cost:
    """Return what a run cost."""
    return cost(state["mixture"], PRICES)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_call_costs_the_same_however_it_is_made(how: str) -> None:
    """A streamed answer is counted once, and its message says what all cost."""
    with serve() as stub:
        steps = [
            Propose([client(stub, "a"), client(stub, "b")]),
            Aggregate(client(stub, "c")),
        ]
        model = ChatMixture(steps, prices=PRICES)
        message = await called(model, how, "Why?", None)
    found = message.response_metadata["mixture"]["cost"]
    assert found["total"] == pytest.approx(3 * EACH)
    assert found["steps"] == {
        "1_propose": pytest.approx(2 * EACH),
        "2_aggregate": pytest.approx(EACH),
    }
    assert found["estimated"] == 0


def test_an_answer_from_a_cache_is_free() -> None:
    """The first run pays; the second reads and writes no token."""
    with serve() as stub:
        graph = create_mixture([Propose([client(stub, "a", cache=InMemoryCache())])])
        runs = [graph.invoke(ask()) for _ in range(2)]
    assert [priced(state).total for state in runs] == [pytest.approx(EACH), 0]
    usage = runs[1]["mixture"]["usage"]
    assert (usage["total_tokens"], usage["estimated_tokens"]) == (0, 0)
    assert runs[1]["mixture"]["history"][0]["llm_calls"][0]["cached"] is True


def test_a_retry_inside_the_client_is_one_call() -> None:
    """A request that the provider turned down is not billed."""
    with serve() as stub:
        answers = iter([Answer("slow down", status=429, headers={"retry-after": "0"})])
        stub.answer = lambda _: next(answers, "answer")
        state = create_mixture([Propose([client(stub, "a", max_retries=2)])]).invoke(
            ask()
        )
    assert len(stub.requests) == 2
    assert len(state["mixture"]["history"][0]["llm_calls"]) == 1
    assert priced(state).total == pytest.approx(EACH)


def test_a_fallback_is_paid_at_its_own_price() -> None:
    """The call that failed reported nothing: it is an estimate beside the total."""
    with serve() as stub:
        stub.answer = lambda r: Answer("no", status=400) if r["model"] == "b" else "yes"
        down, spare = client(stub, "b"), client(stub, "spare")
        ours = create_mixture(
            [Propose([client(stub, "a")]), Aggregate(down, fallbacks=[spare])]
        ).invoke(ask())
        inside = create_mixture([Propose([down.with_fallbacks([spare])])]).invoke(ask())
    assert priced(ours).total == pytest.approx(2 * EACH)
    assert set(priced(ours).models) == {"a", "spare"}
    assert 0 < priced(ours).estimated < 0.001
    assert priced(inside).models == {"spare": pytest.approx(EACH)}
    assert priced(inside).estimated == 0


async def test_a_call_given_up_by_quorum_is_an_estimate_beside_the_total() -> None:
    """Nobody knows what it cost, so it is said apart from what is known."""
    release = threading.Event()
    with serve() as stub:
        stub.answer = lambda r: Answer(
            "answer", hang=release if r["model"] == "b" else None
        )
        steps = [Propose([client(stub, "a"), client(stub, "b")], quorum=1)]
        state = await create_mixture(steps).ainvoke(ask())
        release.set()
    found = priced(state)
    assert found.total == pytest.approx(EACH)
    assert 0 < found.estimated < EACH
    assert set(found.models) == {"a"}


def test_a_chain_of_several_models_is_paid_model_by_model() -> None:
    """The history names each, with its own tokens."""
    first, second = models("a", "b").values()
    chain = first | RunnableLambda(lambda message: [("user", message.text)]) | second
    state = create_mixture([Propose([chain])]).invoke(ask())
    assert priced(state).models == {"a": pytest.approx(EACH), "b": pytest.approx(EACH)}
    (call,) = state["mixture"]["history"][0]["llm_calls"]
    assert [model["model_name"] for model in call["models"]] == ["a", "b"]
    assert call["total_tokens"] == 30


@pytest.mark.parametrize("report_usage", [False, True])
@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: m.graph], ids=["chat", "graph"]
)
def test_a_mixture_inside_a_mixture_is_paid_once(
    wrap: Callable[[Any], Any], report_usage: bool
) -> None:
    """Its models are named, and its own message adds nothing to them."""
    known = models("a", "b", "c")
    inner = ChatMixture(
        [Propose([known["a"], known["b"]]), Aggregate(known["a"])],
        report_usage=report_usage,
    )
    state = create_mixture([Propose([wrap(inner)]), Aggregate(known["c"])]).invoke(
        ask()
    )
    found = priced(state)
    assert found.total == pytest.approx(4 * EACH)
    assert found.models == {
        "a": pytest.approx(2 * EACH),
        "b": pytest.approx(EACH),
        "c": pytest.approx(EACH),
    }


def test_a_mixture_that_fails_half_way_is_paid_for() -> None:
    """What its models had answered by then is no estimate."""
    inner = ChatMixture(
        [
            Propose([Scripted(model="a")]),
            Aggregate(Scripted(model="b", script=OSError("x"))),
        ]
    )
    state = create_mixture([Propose([inner, Scripted(model="c")])]).invoke(ask())
    assert priced(state).models == {"a": pytest.approx(EACH), "c": pytest.approx(EACH)}


def test_what_has_no_price_is_named_and_never_0() -> None:
    """The total is unknown then; what is known is by model and by step."""
    steps = [Propose(["a", "x"]), Aggregate("b")]
    state = create_mixture(steps, client=models("a", "b", "x"), prices=PRICES).invoke(
        ask()
    )
    found = priced(state)
    assert found.total is None
    assert found.unpriced == ("x",)
    assert found.steps == {"1_propose": None, "2_aggregate": pytest.approx(EACH)}
    assert state["messages"][-1].response_metadata["mixture"]["cost"]["total"] is None


def mixtures(message: Any) -> list[dict[str, Any]]:
    """Return what an answer tells of mixtures, the inner ones behind the outer."""
    told, found = message.response_metadata.get("mixture"), []
    while told is not None:
        found.append(told)
        told = told.get("inner")
    return found


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_the_answer_says_what_the_middlewares_panel_cost(how: str) -> None:
    """Once, on the answer that it was asked for, with tools or without."""
    advisers = [Adviser(model="a"), Adviser(model="b")]
    middleware = MixtureMiddleware([Propose(advisers)], prices=PRICES, name="advice")
    for steps in (2, 0):
        writer = Loop(model="c", steps=steps)
        agent: Any = create_agent(writer, [look], middleware=[middleware])
        first, *rest = answers_of(await called(agent, how, ask(), None))
        assert len(rest) == steps
        (told,) = mixtures(first)
        assert told["by"].startswith("advice:")
        assert told["cost"]["total"] == pytest.approx(2 * EACH)
        assert told["cost"]["steps"] == {"1_propose": pytest.approx(2 * EACH)}
        assert ("responses" in told) is (steps > 0)
        assert all(mixtures(answer) == [] for answer in rest)


def answers_of(state: Any) -> list[Any]:
    """Return an agent's answers."""
    return [message for message in state["messages"] if message.type == "ai"]


def test_what_a_panel_costs_stands_beside_what_the_agents_own_mixture_costs() -> None:
    """Neither hides the other, whether the turn goes on or not."""
    middleware = MixtureMiddleware([Propose([Adviser(model="a")])], prices=PRICES)
    for steps in (1, 0):
        writer = Loop(model="c", steps=steps)
        panel = Propose([Adviser(model="b")])
        model = ChatMixture([panel, Aggregate(writer)], prices=PRICES)
        agent = create_agent(model, [look], middleware=[middleware])
        own, panels = mixtures(answers_of(agent.invoke(ask()))[0])
        assert own["cost"]["models"] == {
            "b": pytest.approx(EACH),
            "c": pytest.approx(EACH),
        }
        assert panels["cost"]["models"] == {"a": pytest.approx(EACH)}


def test_a_panel_that_fails_says_what_it_had_paid_for() -> None:
    """And one without prices says nothing."""
    down = Scripted(model="b", script=OSError("down"))
    steps = [Propose([Adviser(model="a")]), Aggregate(down)]
    for prices in (PRICES, None):
        middleware = MixtureMiddleware(steps, prices=prices)
        agent = create_agent(Loop(model="c", steps=0), middleware=[middleware])
        (answer,) = answers_of(agent.invoke(ask()))
        costs = [told["cost"]["models"] for told in mixtures(answer)]
        assert costs == ([] if prices is None else [{"a": pytest.approx(EACH)}])


def test_prices_may_be_a_function_of_provider_and_model() -> None:
    """It is asked with what the answer says, and None is no price."""
    asked = []

    def prices(provider: str | None, model: str) -> dict[str, float] | None:
        asked.append((provider, model))
        return {"input": 1.0, "output": 2.0} if model == "a" else None

    with serve() as stub:
        steps = [Propose([client(stub, "a"), client(stub, "b")])]
        mixture = create_mixture(steps).invoke(ask())["mixture"]
    found = cost(mixture, prices)
    assert found.models == {"a": pytest.approx(EACH)}
    assert found.unpriced == ("b",)
    assert asked == [("openai", "a"), ("openai", "b")]


def test_a_function_of_prices_that_raises_loses_nothing() -> None:
    """The error names the step, and keeps what was paid for."""

    def prices(provider: str | None, model: str) -> Any:
        raise ZeroDivisionError

    graph = create_mixture([Propose(["a"])], client=models("a"), prices=prices)
    with pytest.raises(StepFailedError, match="1_propose: ZeroDivisionError") as raised:
        graph.invoke(ask())
    assert raised.value.history[0]["llm_calls"][0]["total_tokens"] == 15


def test_a_turn_without_prices_has_not_the_cost_of_the_turn_before() -> None:
    """A thread may go on with another graph."""
    saver: Any = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    for prices in (PRICES, None):
        graph = create_mixture(
            [Propose(["a"])], client=models("a"), checkpointer=saver, prices=prices
        )
        state = graph.invoke(ask(), config)
    assert state["mixture"]["cost"] is None


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"m": {"output": 1.0}}, r"prices\['m'\] is .* of which input is needed"),
        ({"m": {"input": -1.0}}, "allowed: dollars per million"),
        ({"m": {"input": float("nan")}}, "allowed: dollars per million"),
        ({"m": {"input": 1.0, "cache_read": 1.0}}, "cached_read"),
        ({"m": 2.0}, "allowed: dollars per million"),
        (7, 'prices is 7; allowed: a mapping .* or "genai-prices"'),
        (lambda provider, model: {"output": 1.0}, r"prices\(None, 'm'\) is"),
    ],
    ids=["no input", "negative", "nan", "another word", "a number", "7", "function"],
)
def test_what_are_no_prices_is_refused(prices: Any, message: str) -> None:
    """The error names the model, the value and what is allowed."""
    call: Any = {"model": "m", "in_tokens": 1, "out_tokens": 1}
    row: Any = {"name": "1_propose", "llm_calls": [call]}
    with pytest.raises(InvalidMixtureError, match=message):
        cost([row], prices)


@pytest.mark.parametrize("value", ["text", {"usage": {}}, None])
def test_what_is_no_history_is_refused(value: Any) -> None:
    """The message's metadata has no history, for one."""
    with pytest.raises(InvalidMixtureError, match="a history"):
        cost(value, PRICES)


# -- The limit -----------------------------------------------------------------------

CENT = {"a": {"input": 0.0, "output": 100.0}}  # a hundred tokens written = one cent
TWELVE = [Propose(["a"], max_tokens=100), *[Synthesize(["a"], max_tokens=100)] * 11]


def cent() -> Scripted:
    """Return a model whose every answer costs one cent."""
    usage: Any = {"input_tokens": 50, "output_tokens": 100, "total_tokens": 150}
    said = AIMessage(
        "answer", usage_metadata=usage, response_metadata={"model_name": "a"}
    )
    return Scripted(model="a", script=said)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("kind", ["chat", "graph"])
@pytest.mark.parametrize(
    ("max_cost", "made"), [(0.075, 7), (0.08, 8), (0.12, 12), (1.0, 12)]
)
async def test_the_last_call_that_fits_is_made_and_the_next_is_not(
    how: str, kind: str, max_cost: float, made: int
) -> None:
    """Of twelve calls of one cent each, so many are made as the limit pays for."""
    model = cent()
    fields: Any = {"client": {"a": model}, "prices": CENT, "max_cost": max_cost}
    if kind == "chat":
        message = await called(ChatMixture(TWELVE, **fields), how, "Why?", None)
    else:
        state = await called(create_mixture(TWELVE, **fields), how, ask(), None)
        message = state["messages"][-1]
    assert len(model.asked) == made
    assert message.text == "answer"
    about = message.response_metadata["mixture"]
    assert about["cost"]["total"] == pytest.approx(made / 100)
    assert about["status"] == ("complete" if made == 12 else "degraded")
    if made < 12:
        assert f"past ${max_cost} (max_cost)" in about["reasons"][0]


@pytest.mark.parametrize(("max_cost", "made"), [(0.075, 7), (0.12, 12)])
def test_calls_of_one_step_share_the_limit(max_cost: float, made: int) -> None:
    """Calls that run at once are paid for in advance."""
    model = cent()
    steps = [Propose(["a"] * 12, max_tokens=100)]
    graph = create_mixture(steps, client={"a": model}, prices=CENT, max_cost=max_cost)
    assert len(graph.invoke(ask())["mixture"]["responses"]) == made
    assert len(model.asked) == made


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_resumed_run_has_what_is_left_of_its_dollars(how: str) -> None:
    """Calls made before the break are paid, and those after it are not paid twice."""
    model, good = cent(), cent().script
    count = iter(range(100))
    model.script = lambda _: OSError("down") if next(count) == 3 else good
    graph = create_mixture(
        TWELVE,
        client={"a": model},
        prices=CENT,
        max_cost=0.075,
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(StepFailedError, match="down"):
        await called(graph, how, ask(), config)
    assert len(model.asked) == 4
    state = await called(graph, how, None, config)
    assert len(model.asked) == 7 + 1
    assert state["mixture"]["cost"]["total"] == pytest.approx(0.07)


@pytest.mark.parametrize(
    "make",
    [
        create_mixture,
        lambda s, **k: ChatMixture(s, **k).invoke("Why?"),
        MixtureMiddleware,
    ],
    ids=["create_mixture", "ChatMixture", "MixtureMiddleware"],
)
def test_a_model_without_a_price_is_an_error_before_the_first_call(make: Any) -> None:
    """The error names the model, and nobody is asked."""
    known = models("a", "x")
    steps = [Propose(["a"]), Aggregate("a", fallbacks=["x"])]
    with pytest.raises(InvalidMixtureError, match="there is no price for 'x'; give"):
        make(steps, client=known, prices=PRICES, max_cost=1.0)
    assert known["a"].asked == []


def test_a_model_that_answers_under_an_unpriced_name_ends_the_spending() -> None:
    """A limit that cannot be reckoned is not passed unseen."""
    model = Scripted(
        model="a", script=AIMessage("hi", response_metadata={"model_name": "other"})
    )
    graph = create_mixture(
        [Propose([model]), Aggregate(model)], prices=PRICES, max_cost=1.0
    )
    mixture = graph.invoke(ask())["mixture"]
    assert len(model.asked) == 1
    assert "there is no price for other, which answered" in mixture["reasons"][0]


def test_the_dearest_model_behind_an_agent_is_reckoned_with() -> None:
    """A fallback inside an agent may answer in its place."""
    cheap, dear = models("a", "b").values()
    prices = {"a": {"input": 0.0}, "b": {"input": 1000.0}}
    graph = create_mixture(
        [Propose([cheap.with_fallbacks([dear])])], prices=prices, max_cost=0.001
    )
    with pytest.raises(NoResponsesError, match=r"past \$0.001 \(max_cost\)"):
        graph.invoke(ask())
    assert cheap.asked == []


def test_a_chain_has_a_price_under_its_own_name() -> None:
    """What it asks inside is not known before it has asked."""
    chain = (Scripted(model="a") | RunnableLambda(str)).with_config(run_name="chain")
    with pytest.raises(InvalidMixtureError, match="there is no price for 'chain'"):
        create_mixture([Propose([chain])], prices={"b": CENT["a"]}, max_cost=1.0)
    graph = create_mixture(
        [Propose([chain])], prices={"chain": CENT["a"]}, max_cost=1.0
    )
    assert graph.invoke(ask())["mixture"]["status"] == "complete"


@pytest.mark.parametrize("max_cost", [0, -1, "1"])
def test_a_limit_that_is_no_amount_is_refused(max_cost: Any) -> None:
    """The error says what is allowed."""
    with pytest.raises(InvalidMixtureError, match="allowed: None or US dollars > 0"):
        create_mixture([Propose(["a"])], client=models("a"), max_cost=max_cost)


def test_prices_are_not_in_traces() -> None:
    """A mapping of hundreds of models would be in each of them."""
    model = ChatMixture([Propose(["a"])], client=models("a"), prices=PRICES)
    assert "prices" not in model._identifying_params


# -- The estimate --------------------------------------------------------------------


def counting(written: int) -> Callable[[dict[str, Any]], Answer]:
    """Answer at full length, and count as tokenizers do: by pieces of words."""

    def answer(request: dict[str, Any]) -> Answer:
        texts = [str(message["content"]) for message in request["messages"]]
        read = sum(len(re.findall(r"\w{1,7}|[^\w\s]", text)) + 4 for text in texts)
        most = request.get("max_completion_tokens") or request.get("max_tokens")
        assert most == written
        return Answer(
            "ion " * written,
            usage={
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
            },
        )

    return answer


@pytest.mark.parametrize(
    "steps",
    [
        [Propose(["a", "b", "c"], max_tokens=400), Aggregate("a", max_tokens=400)],
        self_moa("a", 6, temp=None, max_tokens=400),
        [
            Propose(["a", "b"], max_tokens=400),
            Analyze("c", max_tokens=400),
            Synthesize(["a", "b"], max_tokens=400),
            Refine(["c"], max_tokens=400),
            Aggregate("a", max_tokens=400),
        ],
    ],
    ids=["a panel", "self-moa", "five steps"],
)
def test_an_estimate_is_near_what_a_run_then_reports(steps: Any) -> None:
    """Calls are exact, tokens and dollars within 15 % where replies are as long."""
    question = f"What is an ion, and why does salt dissolve? {'It did not. ' * 20}"
    with serve(counting(400)) as stub:
        known = {name: client(stub, name) for name in "abc"}
        before = estimate(steps, question, PRICES, client=known)
        state = create_mixture(steps, client=known).invoke(ask(question))
        usage, after = state["mixture"]["usage"], priced(state)
        assert before.calls == len(stub.requests)
    assert before.input_tokens == pytest.approx(usage["input_tokens"], rel=0.15)
    assert before.output_tokens == usage["output_tokens"]
    assert before.cost == pytest.approx(after.total, rel=0.15)
    assert before.unlimited == before.unpriced == ()


def test_an_estimate_asks_nobody_and_names_what_it_does_not_know() -> None:
    """Replies that nothing limits are taken as 1,000 tokens, and said to be."""
    known = models("a", "x")
    steps = [Propose(["a", "x"]), Rank("a", 1), Aggregate("x", max_tokens=10)]
    found = estimate(steps, "Why?", PRICES, client=known)
    assert (found.calls, found.output_tokens, found.cost) == (4, 3010, None)
    assert (found.unpriced, found.unlimited) == (("x",), ("a", "x"))
    assert str(found).endswith("no price: x; no limit, taken as 1,000: a, x")
    assert known["a"].asked == known["x"].asked == []


@pytest.mark.parametrize(
    "question",
    [
        "Why?",
        [HumanMessage("Why?")],
        [("user", "Why?")],
        ChatPromptValue(messages=[HumanMessage("Why?")]),
    ],
    ids=["text", "messages", "pairs", "prompt"],
)
def test_an_estimate_takes_whatever_a_chat_model_takes(question: Any) -> None:
    """The same question costs the same in every form."""
    steps = [Propose(["a"], max_tokens=10), Aggregate("a", max_tokens=10)]
    found = estimate(steps, question, PRICES, client=models("a"))
    assert found == estimate(steps, "Why?", PRICES, client=models("a"))


class Later(Propose):
    """Keeps answers, after a call of its own that an estimate must not make."""

    called = False

    async def keep(self, responses: Any, replies: Any) -> list[Response]:  # type: ignore[override]
        type(self).called = True
        return list(responses)


def test_an_estimate_does_not_run_what_a_step_awaits() -> None:
    """Its calls are counted all the same, and its answers are read by the next step."""
    client = models("a", "b")
    found = estimate([Later(["a", "b"]), Aggregate("a")], "Why?", PRICES, client=client)
    assert found.calls == 3
    assert not Later.called
    plain = [Propose(["a", "b"]), Aggregate("a")]
    assert found == estimate(plain, "Why?", PRICES, client=client)


def test_a_models_own_limit_counts_and_what_it_can_write_does_not() -> None:
    """Anthropic's client sets the most that a model can write where nothing is set."""
    steps = [Propose([client_of(2000), client_of(None)])]
    found = estimate(steps, "Why?", {"claude-sonnet-4-5": SONNET})
    assert found.output_tokens == 3000
    assert found.unlimited == ("claude-sonnet-4-5",)


def client_of(max_tokens: int | None) -> Any:
    """Return a model of Anthropic's that is never asked."""
    limit: Any = {} if max_tokens is None else {"max_tokens": max_tokens}
    return ChatAnthropic(model_name="claude-sonnet-4-5", api_key=KEY, **limit)


def test_the_figures_of_the_page_are_those_that_its_code_prints(
    openai_on_loopback: Any, capsys: Any
) -> None:
    """The table of an agent's day, and the estimate in the comment."""
    text = (ROOT / "docs" / "costs.md").read_text()
    space: dict[str, Any] = {}
    for block in blocks(text):
        exec(compile(block, "costs.md", "exec"), space)
    printed = capsys.readouterr().out.splitlines()
    (said,) = re.findall(r"# (3 calls, .*)", text)
    # The words of a prompt may change, and with them its tokens.
    assert re.sub(r"\d", "0", said) == re.sub(r"\d", "0", printed[0])
    table = re.findall(r"(?m)^\| (?:its|advised).*?\| (\d+\.\d\d) \|", text)
    assert printed[-1].split() == table


def test_a_graphs_message_has_its_tokens_in_total_and_its_state_by_model() -> None:
    """What a mixture elsewhere has used is counted, from whichever comes back."""
    inner = create_mixture([Propose(["a", "b"])], client=models("a", "b"))
    state = inner.invoke(ask())
    usage = state["messages"][-1].response_metadata["mixture"]["usage"]
    assert usage["total_tokens"] == 30
    assert not {"models", "steps"} & usage.keys()
    elsewhere = RunnableLambda(lambda _: state["messages"][-1])
    (call,) = called_by(elsewhere)
    assert call["total_tokens"] == 30
    told = {"messages": state["messages"][-1:], "mixture": state["mixture"]}
    builder = StateGraph(MixtureOutput).add_node("elsewhere", lambda _: told)
    (call,) = called_by(builder.add_edge(START, "elsewhere").compile())
    assert [model["model_name"] for model in call["models"]] == ["a", "b"]


def called_by(agent: Any) -> list[Any]:
    """Return the calls that the history has of a step which asks an agent."""
    state = create_mixture([Propose([agent])]).invoke(ask())
    return list(state["mixture"]["history"][0]["llm_calls"])
