"""All private or undocumented API of LangChain and LangGraph that is used here.

Each function says what breaks without it. `tests/test_compat.py` fails where the host
has changed; seen in langchain-core 1.8.3 and langgraph 1.2.24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, TypeVar

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableConfig, RunnableParallel
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime

Graph = TypeVar("Graph", bound=CompiledStateGraph[Any, Any, Any, Any])


def makes_models_stream(handler: BaseCallbackHandler) -> bool:
    """Whether a handler makes models stream.

    An outer stream's handler would make every model inside stream, and deliver its
    tokens a second time. Core marks such handlers by two private classes.

    Example:
        >>> makes_models_stream(BaseCallbackHandler())
        False
    """
    kinds = {kind.__name__ for kind in type(handler).__mro__}
    return bool(kinds & {"_StreamingCallbackHandler", "_V2StreamingCallbackHandler"})


def is_message_stream(handler: BaseCallbackHandler) -> bool:
    """Whether a handler is that of LangGraph's `stream_mode="messages"`.

    It would make models stream whose tokens are not to be seen. `astream_events` has a
    handler of the same kind, in langchain-core, which is to see them.
    """
    return makes_models_stream(handler) and type(handler).__module__.startswith(
        "langgraph"
    )


def provider_of(model: object) -> str | None:
    """Return the provider that a chat model names to LangSmith, such as `openai`.

    Messages say which provider's blocks they hold, and middleware compares the two.
    LangChain's own middleware reads it in the same way.
    """
    params: dict[str, Any] = getattr(model, "_get_ls_params", dict)()
    provider = params.get("ls_provider")
    return provider if isinstance(provider, str) else None


class attached:  # noqa: N801  # as contextlib's own
    """Put a block into the run that a config is of, as LangGraph does with its nodes.

    A writer of a custom stream reads there which graph writes.
    """

    def __init__(self, config: RunnableConfig | None) -> None:
        self._config = config

    def __enter__(self) -> None:
        self._token = var_child_runnable_config.set(self._config)

    def __exit__(self, *_: object) -> None:
        var_child_runnable_config.reset(self._token)


def detached() -> attached:
    """Hide the run that one is in from wrappers and graphs, for a block.

    They would add its callbacks to those they are given: a run would stand in a trace
    beside the one that it belongs under, and tokens would be heard twice.
    """
    return attached(None)


def detach(context: Context) -> None:
    """Hide the run that one is in from all that runs in a copied context."""
    context.run(var_child_runnable_config.set, None)


def nodes_of(graph: Pregel[Any, Any, Any, Any]) -> list[Runnable[Any, Any]]:
    """Return what the nodes of a compiled graph run, to look for models in them."""
    return [node.bound for node in graph.nodes.values()]


def branches_of(parallel: RunnableParallel[Any]) -> Mapping[str, Runnable[Any, Any]]:
    """Return the Runnables of a parallel one, to find the model of a structured output.

    `with_structured_output(include_raw=True)` has the model in the branch `raw`.
    """
    return parallel.steps__


def made_into(
    kind: type[Graph], graph: CompiledStateGraph[Any, Any, Any, Any], **more: Any
) -> Graph:
    """Make a graph of another class of a compiled one, as `Pregel.copy` makes a copy.

    `StateGraph.compile` always makes a `CompiledStateGraph`.
    """
    made = {key: value for key, value in vars(graph).items() if key != "__orig_class__"}
    return kind(**made, **more)


def saver_of(config: RunnableConfig) -> BaseCheckpointSaver[Any] | None:
    """Return the checkpointer of the LangGraph run that one is a node of, or None.

    Its serializer tells whether a checkpoint can carry a reply. An error of its own
    comes up too late, out of the whole run. None where it is not found.
    """
    saver = (config.get("configurable") or {}).get("__pregel_checkpointer")
    return saver if isinstance(saver, BaseCheckpointSaver) else None


def writer_of(config: RunnableConfig) -> Callable[[Any], None] | None:
    """Return what writes to the custom stream of the run that one is in, or None.

    Where nobody reads one, LangGraph supplies a writer that does nothing, a plain
    function; one that writes has the stream in its closure.
    """
    for value in (config.get("configurable") or {}).values():
        if isinstance(value, Runtime):
            write: Callable[[Any], None] = value.stream_writer
            return write if getattr(write, "__closure__", ...) is not None else None
    return None


def takes_up(config: RunnableConfig, goes_on: bool) -> bool:
    """Whether a run takes over the answers that its thread saved in the step begun.

    Time travel does not: it makes all calls of that step again. A graph inside another
    one is told by that one, under private names, whether it goes on. Without this, a
    resumed step waits for a quorum that is met. `test_resume.py` holds it.

    Args:
        config: What the graph was called with, and what is around it.
        goes_on: Whether its input says so; in a graph by itself that decides.
    """
    known = config.get("configurable") or {}
    if known.get("checkpoint_id") or known.get("__pregel_replay_state"):
        return False
    if saver_of(config) is not None:
        return bool(known.get("__pregel_resuming"))
    return goes_on


def outer_runner(config: RunnableConfig | None) -> object | None:
    """Return what drives the LangGraph run that one is a node of, or None.

    It dies with that run. A run that an AnyIO scope cancels leaves its nodes alive
    (langgraph #8302, #5682), and only its runner's end tells them. Read through three
    private names; None where one of them has another shape.

    Args:
        config: What the graph inside was called with; else that of the node's code.
    """
    for known in (config, var_child_runnable_config.get()):
        call = ((known or {}).get("configurable") or {}).get("__pregel_call")
        try:
            futures = call.keywords["futures"]()  # type: ignore[union-attr]  # a partial
            runner: object = futures.callback().__self__
        except (AttributeError, KeyError, TypeError):
            continue
        return runner
    return None
