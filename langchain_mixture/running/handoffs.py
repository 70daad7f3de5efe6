"""Handoffs: an agent graph may command a parent graph, which a mixture is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langgraph.errors import ParentCommand
from langgraph.types import Send

from langchain_mixture.errors import shown


@contextmanager
def refused_handoffs() -> Iterator[None]:
    """Turn a handoff into an error, for the length of a block.

    An agent graph that ends in `Command(graph=Command.PARENT)` raises it. LangGraph
    would take it, as it takes an interrupt: it would write the command's update into
    the mixture's state, and the call would be gone without a record (langgraph 1.2.24).

    Raises:
        RuntimeError: There was one; the message names the node that it was for.
    """
    try:
        yield
    except ParentCommand as handoff:
        raise refused(handoff) from handoff


def refused(handoff: ParentCommand) -> RuntimeError:
    """Return the error that a handoff is turned into."""
    goto = handoff.args[0].goto
    nodes = goto if isinstance(goto, list | tuple) else [goto]
    names = [shown(n.node if isinstance(n, Send) else n) for n in nodes]
    to = f" to {', '.join(names)}" if names else ""
    error = RuntimeError(
        f"ended in a handoff{to} (Command.PARENT), which a mixture cannot follow; "
        "the agent must answer itself"
    )
    error.__cause__ = handoff
    return error
