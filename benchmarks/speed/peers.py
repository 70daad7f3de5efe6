"""The same pipeline in the ways that a user might write it.

`bare` awaits the models layer by layer, with nothing around them; the graphs by hand do
what is needed for the answer, and record nothing: no usage, no history, no limits.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Send
from typing_extensions import TypedDict

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Propose,
    Rank,
    Refine,
    Synthesize,
    create_mixture,
)

QUESTION = [HumanMessage("What is an ion, and why does it matter in batteries? " * 2)]
TEXT = "An ion is an atom or a molecule with a charge. " * 4

SHAPES: dict[str, list[tuple[str, int]]] = {
    "P1": [("propose", 6), ("aggregate", 1)],
    "P2": [("propose", 6), ("synthesize", 6), ("synthesize", 6), ("aggregate", 1)],
    "P3": [("propose", 64), ("aggregate", 1)],
    "P4": [("propose", 6), ("refine", 6), ("rank", 1), ("aggregate", 1)],
}
"""P1 is 6 → 1, P2 6, 6, 6 → 1, P3 64 → 1, P4 6, refine 6, rank, → 1."""

Layers: TypeAlias = list[list[BaseChatModel]]
Shape: TypeAlias = Sequence[tuple[str, int]]
Keys: TypeAlias = list[list[str]]
"""Under which key each call of each layer writes its text."""


class Model(BaseChatModel):
    """Answers at once, or after some seconds of waiting."""

    name: str
    text: str = TEXT
    delay: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "benchmark"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        message = AIMessage(
            self.text,
            usage_metadata={"input_tokens": 9, "output_tokens": 5, "total_tokens": 14},
            response_metadata={"model_name": self.name},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
        if self.delay:
            await asyncio.sleep(self.delay)
        return self._generate()


def layers_of(shape: Shape, text: str = TEXT, delay: float = 0.0) -> Layers:
    """Return the models of a shape. A judge's answer is an order."""
    order = ", ".join(str(n) for n in range(6, 0, -1))
    return [
        [
            Model(name=f"{k}-{i}", text=order if verb == "rank" else text, delay=delay)
            for i in range(count)
        ]
        for k, (verb, count) in enumerate(shape, 1)
    ]


def steps_of(shape: Shape, layers: Layers) -> list[Any]:
    """Return the pipeline of a shape."""
    kinds: dict[str, Callable[[list[BaseChatModel]], Any]] = {
        "propose": Propose,
        "synthesize": Synthesize,
        "refine": Refine,
        "rank": lambda models: Rank(models[0], 3),
        "aggregate": lambda models: Aggregate(models[0]),
    }
    return [kinds[verb](layer) for (verb, _), layer in zip(shape, layers, strict=True)]


def shown(
    messages: Sequence[BaseMessage], verb: str, texts: Sequence[str], index: int
) -> list[BaseMessage]:
    """Return what a model is asked by hand, given the answers before it."""
    if not texts:
        return [*messages]
    seen = texts[index : index + 1] if verb == "refine" else texts
    numbered = "\n\n".join(f"{n}. {text}" for n, text in enumerate(seen, 1))
    return [SystemMessage(f"Now {verb} these responses:\n{numbered}"), *messages]


def bare(
    shape: Shape, layers: Layers, _: Any, sync: bool, __: str | None = None
) -> Any:
    """The models alone."""

    def asked(texts: list[str], verb: str, layer: list[BaseChatModel]) -> Any:
        return zip(
            layer,
            [shown(QUESTION, verb, texts, i) for i in range(len(layer))],
            strict=True,
        )

    def run() -> None:
        texts: list[str] = []
        with ThreadPoolExecutor() as pool:
            for (verb, _), layer in zip(shape, layers, strict=True):
                calls = asked(texts, verb, layer)
                texts = [m.text for m in pool.map(lambda c: c[0].invoke(c[1]), calls)]

    async def arun() -> None:
        texts: list[str] = []
        for (verb, _), layer in zip(shape, layers, strict=True):
            calls = [m.ainvoke(asks) for m, asks in asked(texts, verb, layer)]
            texts = [m.text for m in await asyncio.gather(*calls)]

    return run if sync else arun


def lcel(
    shape: Shape, layers: Layers, _: Any, sync: bool, __: str | None = None
) -> Any:
    """A chain of parallel models."""
    chain: Runnable[Any, Any] = RunnablePassthrough()
    for (verb, _), layer in zip(shape, layers, strict=True):
        branches: dict[str, Any] = {}
        for index, model in enumerate(layer):

            def ask(state: Any, verb: str = verb, index: int = index) -> Any:
                return shown(state["messages"], verb, state["texts"], index)

            branches[f"{index:03}"] = RunnableLambda(ask) | model
        texts = RunnableParallel(branches) | (
            lambda said: [m.text for m in said.values()]
        )
        chain = chain | RunnablePassthrough.assign(texts=texts)
    given = {"messages": QUESTION, "texts": []}
    return _called(chain, given, None, sync)


def _state(kind: Any, keys: Iterable[str]) -> Any:
    """Return the state of a graph by hand: messages, and texts under some keys."""
    fields = {"messages": Annotated[list[AnyMessage], add_messages]}
    made: Any = TypedDict  # a type of which no checker knows the fields
    return made("State", {**fields, **dict.fromkeys(keys, kind)})


def _node(shape: Shape, keys: Keys, k: int, i: int, model: Any, sync: bool) -> Any:
    def ask(state: Any) -> list[BaseMessage]:
        # Keys that a layer shares count once.
        known = dict.fromkeys(keys[k - 1]) if k else ()
        texts = [text for key in known for text in state[key]]
        return shown(state["messages"], shape[k][0], texts, i)

    def told(message: AIMessage) -> dict[str, Any]:
        if k == len(shape) - 1:
            return {"messages": [message]}
        return {keys[k][i]: [message.text]}

    def node(state: Any) -> dict[str, Any]:
        return told(model.invoke(ask(state)))

    async def anode(state: Any) -> dict[str, Any]:
        return told(await model.ainvoke(ask(state)))

    return node if sync else anode


def static(
    shape: Shape, layers: Layers, saver: Any, sync: bool, thread: str | None = None
) -> Any:
    """A graph by hand: a node for each call, joined layer by layer."""
    names = [[f"{k}_{i}" for i in range(n)] for k, (_, n) in enumerate(shape)]
    keys = [[f"said_{name}" for name in row] for row in names]
    builder = StateGraph(_state(list[str], [key for row in keys for key in row]))
    for k, layer in enumerate(layers):
        for i, model in enumerate(layer):
            builder.add_node(names[k][i], _node(shape, keys, k, i, model, sync))
            before = names[k - 1] if k else []
            if not k:
                builder.add_edge(START, names[k][i])
            else:  # a list of one waits for nothing, and costs a channel
                start = before if len(before) > 1 else before[0]
                builder.add_edge(start, names[k][i])
    builder.add_edge(names[-1][0], END)
    return _called(builder.compile(checkpointer=saver), None, saver, sync, thread)


def send(
    shape: Shape, layers: Layers, saver: Any, sync: bool, thread: str | None = None
) -> Any:
    """A graph by hand: a node a layer, sent to for each call, and one that joins."""
    keys = [[f"texts_{k}"] * n for k, (_, n) in enumerate(shape)]
    kind = Annotated[list[str], operator.add]
    builder = StateGraph(_state(kind, [row[0] for row in keys]))

    def fan_out(k: int) -> Any:
        # A payload with the answers before it, as the nodes of `Send` see no state.
        return lambda state: [
            Send(f"ask_{k}", {**state, "index": index})
            for index in range(len(layers[k]))
        ]

    def asking(k: int) -> Any:
        nodes = [_node(shape, keys, k, i, m, sync) for i, m in enumerate(layers[k])]
        if sync:
            return lambda state: nodes[state["index"]](state)

        async def ask(state: Any) -> Any:
            return await nodes[state["index"]](state)

        return ask

    builder.add_conditional_edges(START, fan_out(0), ["ask_0"])
    for k in range(len(shape)):
        builder.add_node(f"ask_{k}", asking(k))
        if k < len(shape) - 1:
            builder.add_node(f"join_{k}", lambda _: {})
            builder.add_edge(f"ask_{k}", f"join_{k}")
            builder.add_conditional_edges(f"join_{k}", fan_out(k + 1), [f"ask_{k + 1}"])
    return _called(builder.compile(checkpointer=saver), None, saver, sync, thread)


def gathering(
    shape: Shape, layers: Layers, saver: Any, sync: bool, thread: str | None = None
) -> Any:
    """A graph by hand: one node a layer makes all calls. A resume repeats them."""
    keys = [[f"texts_{k}"] * n for k, (_, n) in enumerate(shape)]
    builder = StateGraph(_state(list[str], [row[0] for row in keys]))
    for k, layer in enumerate(layers):
        nodes = [_node(shape, keys, k, i, m, sync) for i, m in enumerate(layer)]
        key = "messages" if k == len(shape) - 1 else keys[k][0]

        def ask(state: Any, nodes: Any = nodes, key: str = key) -> Any:
            with ThreadPoolExecutor() as pool:
                said = list(pool.map(lambda node: node(state), nodes))
            return {key: [text for one in said for text in one[key]]}

        async def aask(state: Any, nodes: Any = nodes, key: str = key) -> Any:
            said = await asyncio.gather(*(node(state) for node in nodes))
            return {key: [text for one in said for text in one[key]]}

        builder.add_node(f"layer_{k}", ask if sync else aask)
        builder.add_edge(f"layer_{k - 1}" if k else START, f"layer_{k}")
    return _called(builder.compile(checkpointer=saver), None, saver, sync, thread)


def ours(
    shape: Shape, layers: Layers, saver: Any, sync: bool, thread: str | None = None
) -> Any:
    """`create_mixture`."""
    graph = create_mixture(steps_of(shape, layers), checkpointer=saver)
    return _called(graph, None, saver, sync, thread)


def model(
    shape: Shape, layers: Layers, _: Any, sync: bool, __: str | None = None
) -> Any:
    """`ChatMixture`."""
    return _called(ChatMixture(steps_of(shape, layers)), QUESTION, None, sync)


_threads = itertools.count()


def _called(
    runnable: Any, given: Any, saver: Any, sync: bool, thread: str | None = None
) -> Any:
    """Return what runs it once; with a saver, on this thread or one of its own."""
    given = given or {"messages": QUESTION}

    def config() -> Any:
        known = {"thread_id": thread or f"{next(_threads)}"}
        return {"configurable": known} if saver is not None else {}

    def run() -> Any:
        return runnable.invoke(given, config())

    async def arun() -> Any:
        return await runnable.ainvoke(given, config())

    return run if sync else arun


PEERS: dict[str, Callable[..., Any]] = {
    "bare calls": bare,
    "LCEL": lcel,
    "static": static,
    "Send": send,
    "one node": gathering,
    "create_mixture": ours,
    "ChatMixture": model,
}
"""By name; each takes a shape, its models, a saver, whether it is to be sync, and the
thread to run on, else one a run."""
