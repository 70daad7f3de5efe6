"""One trace with the true tree, as the real tracer posts it over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tracers import LangChainTracer
from langchain_core.tracers.context import (
    register_configure_hook,
    tracing_v2_enabled,
)
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langsmith import Client

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    NoResponsesError,
    Propose,
    StepFailedError,
    create_mixture,
)
from langchain_mixture.callbacks import callbacks_of
from tests.models import Scripted
from tests.openai_stub import Answer, serve

KEY: Any = "sk-secret-secret-secret"
Runs = dict[str, dict[str, Any]]


class LangSmith:
    """A loopback stand-in for LangSmith, which keeps what it is sent."""

    def __init__(self) -> None:
        self.runs: Runs = {}
        self.payloads: list[str] = []
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                keep(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(202)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_PATCH(self) -> None:
                self.do_POST()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.01,), daemon=True
        )
        self.thread.start()

    def _keep(self, path: str, data: bytes) -> None:
        self.payloads.append(data.decode(errors="replace"))
        run = json.loads(data)
        run_id = run.get("id") or path.rsplit("/", 1)[-1]
        known = self.runs.setdefault(run_id, {})
        known.update({k: v for k, v in run.items() if v is not None})

    def tree(self) -> Any:
        """Give the names of the runs, nested; branches in alphabetical order."""
        assert len({run["trace_id"] for run in self.runs.values()}) == 1

        def under(parent: str | None) -> Any:
            found = [
                (run["name"], under(run_id))
                for run_id, run in self.runs.items()
                if run.get("parent_run_id") == parent
            ]
            return dict(sorted(found))

        return under(None)


@pytest.fixture
def langsmith() -> Iterator[LangSmith]:
    """Run the stand-in for one test."""
    server = LangSmith()
    yield server
    server.server.shutdown()
    server.server.server_close()
    server.thread.join()


@pytest.fixture
def model() -> Iterator[ChatMixture]:
    """Make a mixture of real clients."""
    with serve() as stub:
        clients = {
            name: ChatOpenAI(base_url=stub.url, api_key=KEY, model=name)
            for name in "abc"
        }
        yield ChatMixture(
            [Propose(["a", "b"]), Aggregate("c")],
            client=clients,
            metadata={"own": "yes"},
        )


CHAT: Any = {"ChatOpenAI": {}}
MIXTURE = {
    "ChatMixture": {
        "mixture": {
            "1_propose": {},
            "1_propose/a": CHAT,
            "1_propose/b": CHAT,
            "2_aggregate": CHAT,
        }
    }
}


def bare(model: ChatMixture, config: Any) -> None:
    """Ask the model."""
    model.invoke("Why?", config)


def streamed(model: ChatMixture, config: Any) -> None:
    """Stream it."""
    list(model.stream("Why?", config))


def in_a_sequence(model: ChatMixture, config: Any) -> None:
    """Ask it in a chain."""
    (RunnableLambda(lambda x: x).with_config(run_name="first") | model).invoke(
        "Why?", config
    )


def streamed_in_a_sequence(model: ChatMixture, config: Any) -> None:
    """Stream the chain."""
    chain = RunnableLambda(lambda x: x).with_config(run_name="first") | model
    list(chain.stream("Why?", config))


def outer_graph(model: ChatMixture) -> Any:
    """Make a graph with the model in a node."""

    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(name="outer")


QUESTION = {"messages": [HumanMessage("Why?")]}


def in_a_node(model: ChatMixture, config: Any) -> None:
    """Ask it in a node of another graph."""
    outer_graph(model).invoke(QUESTION, config)


def streamed_in_a_node(model: ChatMixture, config: Any) -> None:
    """Stream the other graph's messages."""
    list(outer_graph(model).stream(QUESTION, config, stream_mode="messages"))


IN_A_SEQUENCE = {"RunnableSequence": {"first": {}, **MIXTURE}}
IN_A_NODE = {"outer": {"node": MIXTURE}}


@pytest.mark.parametrize("by", ["callback", "environment"])
@pytest.mark.parametrize(
    ("ask", "tree"),
    [
        (bare, MIXTURE),
        (streamed, MIXTURE),
        (in_a_sequence, IN_A_SEQUENCE),
        (streamed_in_a_sequence, IN_A_SEQUENCE),
        (in_a_node, IN_A_NODE),
        (streamed_in_a_node, IN_A_NODE),
    ],
)
def test_one_trace_shows_the_true_tree(
    model: ChatMixture,
    langsmith: LangSmith,
    ask: Callable[[ChatMixture, Any], None],
    tree: Any,
    by: str,
) -> None:
    """ChatMixture, its graph, a run per branch, the models: in one trace, no secret."""
    client = Client(api_url=langsmith.url, api_key=KEY, auto_batch_tracing=False)
    if by == "callback":
        ask(model, {"callbacks": [LangChainTracer(client=client)], "tags": ["mine"]})
    else:
        with tracing_v2_enabled(client=client):
            ask(model, {"tags": ["mine"]})
    client.close()
    assert langsmith.tree() == tree
    (proposer,) = [
        run
        for run in langsmith.runs.values()
        if run["name"] == "ChatOpenAI"
        and run["extra"]["metadata"]["mixture_agent"] == "a"
    ]
    assert proposer["extra"]["metadata"]["mixture_step"] == "1_propose"
    assert proposer["extra"]["metadata"]["ls_model_name"] == "a"
    assert "mine" in proposer["tags"]
    (whole,) = [r for r in langsmith.runs.values() if r["name"] == "ChatMixture"]
    assert whole["extra"]["metadata"]["own"] == "yes"
    assert whole["extra"]["metadata"]["ls_model_name"] == "langchain-mixture"
    assert KEY not in "".join(langsmith.payloads)


async def test_the_trees_of_async_calls_and_streams_are_the_same(
    model: ChatMixture, langsmith: LangSmith
) -> None:
    """Ainvoke and astream nest as invoke and stream do."""
    client = Client(api_url=langsmith.url, api_key=KEY, auto_batch_tracing=False)
    config: Any = {"callbacks": [LangChainTracer(client=client)]}
    await model.ainvoke("Why?", config)
    assert langsmith.tree() == MIXTURE
    langsmith.runs.clear()
    _ = [chunk async for chunk in model.astream("Why?", config)]
    assert langsmith.tree() == MIXTURE
    client.close()


@pytest.mark.parametrize("key", [KEY, "my-own-gateway-password"])
@pytest.mark.parametrize("wrap", ["plain", "chain"])
def test_a_key_that_a_provider_quotes_is_in_no_trace(
    langsmith: LangSmith, key: Any, wrap: str
) -> None:
    """`name` is what the run is called, and no error in its trace holds a key."""
    with serve(lambda _: Answer(f"bad key {key}", status=401)) as stub:
        agent: Any = ChatOpenAI(
            base_url=stub.url, api_key=key, model="a", max_retries=0
        )
        if wrap == "chain":
            agent = RunnableLambda(lambda messages: messages) | agent
        model = ChatMixture([Propose([agent])], name="advisers")
        client = Client(api_url=langsmith.url, api_key=KEY, auto_batch_tracing=False)
        with pytest.raises(StepFailedError) as raised:
            model.invoke("Why?", {"callbacks": [LangChainTracer(client=client)]})
        client.close()
    assert "401" in str(raised.value)
    assert key not in str(raised.value)
    names = [run["name"] for run in langsmith.runs.values()]
    assert names[:2] == ["advisers", "advisers"]
    assert "401" in "".join(langsmith.payloads)
    assert key not in "".join(langsmith.payloads)


@pytest.mark.parametrize("managed", [False, True])
def test_the_callbacks_of_a_call_are_a_copy_and_reach_what_runs_inside(
    managed: bool,
) -> None:
    """What one call adds is not its neighbour's; a list means all runs beneath it."""
    theirs, ours = BaseCallbackHandler(), BaseCallbackHandler()
    given: Any = [theirs]
    if managed:
        given = CallbackManager([theirs], inheritable_handlers=[theirs])
    callbacks_of({"callbacks": given}).add_handler(ours)
    again = callbacks_of({"callbacks": given})
    assert again.handlers == again.inheritable_handlers == [theirs]


class Noted(BaseCallbackHandler):
    """Keeps the errors of models, as a tracer would record them."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.errors.append(repr(error))


NOTED: ContextVar[Noted | None] = ContextVar("noted", default=None)
register_configure_hook(NOTED, inheritable=False)


@pytest.mark.parametrize("where", ["config", "model", "context variable"])
def test_a_key_reaches_no_handler_wherever_it_listens(where: str) -> None:
    """A model that nobody seems to listen to gets no callbacks; these must be seen."""
    noted = Noted()
    leaking = Scripted(model="a", script=ValueError("sk-abcdef1234567890"))
    config: RunnableConfig = {}
    if where == "config":
        config["callbacks"] = [noted]
    elif where == "model":
        leaking.callbacks = [noted]
    token = NOTED.set(noted if where == "context variable" else None)
    try:
        with pytest.raises(NoResponsesError):
            create_mixture([Propose([leaking])]).invoke(
                {"messages": [("user", "Why?")]}, config
            )
    finally:
        NOTED.reset(token)
    assert [error.count("[redacted]") for error in noted.errors] == [1]


class Composite(Scripted):
    """A chat model that asks another one, and then fails."""

    inner: Any

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Any:
        self.inner.invoke(messages, {"callbacks": run_manager.inheritable_handlers})
        raise ValueError("no more")


def test_a_model_that_holds_another_is_heard_though_nobody_listens() -> None:
    """It failed after the one inside had answered: those tokens are counted."""
    failing = Composite(model="outer", inner=Scripted(model="inner"))
    with pytest.raises(NoResponsesError) as raised:
        create_mixture([Propose([failing])]).invoke({"messages": [("user", "Why?")]})
    (call,) = raised.value.history[0]["llm_calls"]
    assert (call["in_tokens"], call["out_tokens"]) == (10, 5)
