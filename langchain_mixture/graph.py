"""The pipeline as a LangGraph graph: one node per step, one branch per call.

Step k is the node `k_verb`, such as `2_aggregate`. A step of several calls also has one
node per call, `k_verb/label`; these branches run in one superstep, before the step's
own node, which gathers their replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Never

from langchain_core.messages import HumanMessage
from langgraph.cache.base import BaseCache
from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import All, Checkpointer

from langchain_mixture.agents.resolve import Client
from langchain_mixture.errors import InvalidMixtureError, refuse, shown
from langchain_mixture.options import OnFailure, Options
from langchain_mixture.prices import Prices
from langchain_mixture.records import HistoryRow
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.running.mixture_graph import MixtureGraph
from langchain_mixture.running.nodes import Branch, Gather
from langchain_mixture.running.state import MixtureInput, MixtureOutput, MixtureState
from langchain_mixture.steps.base import Timeout
from langchain_mixture.steps.program import Steps


def create_mixture(
    steps: Steps,
    *,
    client: Client = None,
    on_failure: OnFailure = "raise",
    timeout: Timeout = "default",
    deadline: float | None = None,
    max_calls: int | None = None,
    max_total_tokens: int | None = None,
    max_cost: float | None = None,
    prices: Prices | None = None,
    stream_proposals: bool = False,
    context_schema: type[Any] | None = None,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    cache: BaseCache[Any] | None = None,
    debug: bool = False,
    transformers: Sequence[Any] | None = None,
    name: str | None = None,
    **unknown: Never,
) -> MixtureGraph:
    """Build the graph of a pipeline: `{"messages": [...]}` in and out.

    The output has the answer appended to `messages`, and one key `mixture` with
    `status`, `reasons`, `responses`, `history` and `usage`.

    Args:
        steps: The pipeline; a list in it stands for its steps. The first step must need
            no responses.
        client: What turns names into models: a chat model, a mapping, a function of
            the name, a function of `model, messages, temp, max_tokens`, or None for
            `init_chat_model`.
        on_failure: What happens if all calls of a Propose, Synthesize, Aggregate or
            Vote fail: "raise", or "keep" to go on with the responses it was given.
            Refine and Rank always go on. With nothing to keep, the run always raises.
        timeout: Seconds per call, or between two chunks of a streamed answer. None =
            no limit; "default" = 300 for models and no limit for agents that are
            graphs.
        deadline: Seconds for the whole run. Each step that makes calls gets an equal
            share of the time left; steps that one condition skips together share
            theirs. A call that is not done by then is given up, and
            the answer is made from the responses so far.
        max_calls: The maximum number of calls, fallbacks included. Once it is reached,
            the answer is made from the responses so far. `count_calls` returns how
            many calls a pipeline makes.
        max_total_tokens: The maximum of tokens read and written, estimated before each
            call. Once it is reached, the same happens.
        max_cost: The maximum of US dollars, estimated before each call. Once it is
            reached, the same happens. Every model needs a price; a chain or a graph
            needs one under its own name.
        prices: What tokens cost, in US dollars per million: a mapping from model names
            to `input`, `cached_read`, `cache_written` and `output`; a function of the
            provider and the model's name that returns these; or "genai-prices", the
            package of that name. Given, the output's `mixture` has `cost`. `max_cost`
            without it uses the package.
        stream_proposals: Whether `stream_mode="messages"` also delivers the tokens of
            calls that are not the answer. Their metadata has `mixture_step` and
            `mixture_agent`.
        context_schema: The graph's context schema, for agents that are graphs.
        checkpointer: As in `StateGraph.compile`, like the next three.
        store: The store of agents that are graphs.
        interrupt_before: Names of steps or branches, such as `2_aggregate`. A step with
            several branches is interrupted before any of its calls is made.
        interrupt_after: Names of steps or branches.
        cache: Passed on.
        debug: Passed on.
        transformers: Passed on.
        name: The graph's name in traces and as an agent of another graph, and the name
            of the answer; None = "mixture", and the answer has its model's.
        **unknown: Misspelt keywords, which raise an error.

    Raises:
        InvalidMixtureError: A step, an agent or the client cannot be used, or a model
            has no price and `max_cost` is set. A running
            graph raises `StepFailedError` and `NoResponsesError`.

    Example:
        ```python
        from langchain_mixture import Aggregate, Propose, create_mixture

        graph = create_mixture(
            [
                Propose(["openai:gpt-4o", "openai:gpt-4o-mini"]),
                Aggregate("openai:gpt-4o"),
            ]
        )
        state = graph.invoke({"messages": [("user", "What is an ion?")]})
        print(state["messages"][-1].text, state["mixture"]["status"])
        ```
    """
    refuse(unknown, create_mixture)
    options = Options(
        on_failure=on_failure,
        timeout=timeout,
        deadline=deadline,
        max_calls=max_calls,
        max_total_tokens=max_total_tokens,
        max_cost=max_cost,
        prices=prices,
        stream_proposals=stream_proposals,
    )
    layers = layers_of(steps, client, options, name)
    return build(
        layers,
        context_schema=context_schema,
        checkpointer=checkpointer,
        store=store,
        interrupt_before=_nodes(interrupt_before, {x.name: x.branches for x in layers}),
        interrupt_after=_nodes(interrupt_after, {}),
        cache=cache,
        debug=debug,
        transformers=transformers,
        name=name or "mixture",
    )


def build(
    layers: Sequence[Layer],
    *,
    context_schema: type[Any] | None = None,
    input_schema: type[Any] = MixtureInput,
    **compiled: Any,
) -> MixtureGraph:
    """Wire layers into a graph.

    Args:
        layers: The steps in their places.
        context_schema: See `create_mixture`.
        input_schema: What goes in.
        **compiled: Passed to `StateGraph.compile`.
    """
    builder = StateGraph(
        MixtureState,
        context_schema=context_schema,
        input_schema=input_schema,
        output_schema=MixtureOutput,
    )
    for entry in layers[0].entries:
        builder.add_edge(START, entry)
    for number, layer in enumerate(layers, 1):
        gather = Gather(layer, layers[number:])
        # An edge would lead on beside a Command: a node has the one or the other. The
        # destinations of Commands are for the drawing alone.
        ways = tuple(gather.leads_to)
        builder.add_node(layer.name, gather, destinations=ways * gather.chooses)
        for way in () if gather.chooses else ways:
            builder.add_edge(layer.name, way)
        for index, branch in enumerate(layer.branches):
            builder.add_node(branch, Branch(layer, index))
            builder.add_edge(branch, layer.name)
    widest = max(len(layer.agents) for layer in layers)
    has_quorum = any(layer.step.quorum is not None for layer in layers)
    outline = [layer.outline for layer in layers]
    return MixtureGraph.of(builder.compile(**compiled), widest, has_quorum, outline)


async def run(
    pipeline: Steps,
    query: str,
    client: Client = None,
    *,
    on_failure: OnFailure = "raise",
    timeout: Timeout = "default",  # noqa: ASYNC109  # of each call, not of this one
    deadline: float | None = None,
    max_calls: int | None = None,
    max_total_tokens: int | None = None,
    max_cost: float | None = None,
    prices: Prices | None = None,
    **unknown: Never,
) -> tuple[str, list[HistoryRow]]:
    """Answer one question with a pipeline, as mixture-llm does.

    Args:
        pipeline: The steps.
        query: The question.
        client: See `create_mixture`. A mixture-llm client is an async function of
            `model, messages, temp, max_tokens` that returns the text and the numbers
            of tokens read and written.
        on_failure: See `create_mixture`.
        timeout: Seconds per call; see `create_mixture`.
        deadline: Seconds for the whole run; see `create_mixture`.
        max_calls: See `create_mixture`.
        max_total_tokens: See `create_mixture`.
        max_cost: See `create_mixture`.
        prices: See `create_mixture`; `cost(history, prices)` returns what it cost.
        **unknown: Misspelt keywords, which raise an error.

    Returns:
        The answer and the history, one row per step.

    Raises:
        InvalidMixtureError: The pipeline, the query or the client cannot be used.
        StepFailedError: A step failed; `responses` and `history` keep what was paid
            for.
        NoResponsesError: No response is left.

    Example:
        ```python
        import asyncio

        from langchain_mixture import Aggregate, Propose, run

        async def client(model, messages, temp, max_tokens):
            return f"{model} says hello", 12, 3

        pipeline = [Propose(["gpt-4o", "gpt-4o-mini"]), Aggregate("gpt-4o")]
        text, history = asyncio.run(run(pipeline, "Hello?", client))
        ```
    """
    refuse(unknown, run)
    if not isinstance(query, str):
        raise InvalidMixtureError(f"query is {shown(query)}; allowed: a string.")
    graph = create_mixture(
        pipeline,
        client=client,
        on_failure=on_failure,
        timeout=timeout,
        deadline=deadline,
        max_calls=max_calls,
        max_total_tokens=max_total_tokens,
        max_cost=max_cost,
        prices=prices,
    )
    state = await graph.ainvoke({"messages": [HumanMessage(query)]})
    return state["messages"][-1].text, state["mixture"]["history"]


def _nodes(
    names: All | Sequence[str] | None, branches: Mapping[str, list[str]]
) -> All | list[str] | None:
    """Replace the name of a step by those of its branches, which make the calls."""
    if names is None or names == "*":
        return names
    if isinstance(names, str):
        names = [names]
    return [node for name in names for node in branches.get(name) or [name]]
