"""The state of the graph: its input, its output, and what its nodes share."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Annotated, Final

from langchain_core.messages import AIMessage, AnyMessage, MessageLikeRepresentation
from langgraph.channels import EphemeralValue, Topic
from langgraph.graph import add_messages
from langgraph.types import Command
from typing_extensions import TypedDict

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.records import NO_USAGE, Reply, Result

NOTHING: Final = Result(
    status="complete", reasons=[], responses=[], history=[], usage=NO_USAGE
)


class MixtureInput(TypedDict):
    """The input of the graph."""

    messages: Annotated[list[AnyMessage | MessageLikeRepresentation], add_messages]


class AdvisedInput(MixtureInput):
    """The input of a graph that begins with the answering step."""

    mixture: Annotated[Result, operator.or_]


class MixtureOutput(TypedDict):
    """The output of the graph."""

    messages: Annotated[list[AnyMessage], add_messages]
    mixture: Annotated[Result, operator.or_]


class MixtureState(MixtureOutput):
    """The state that the nodes share. Only `messages` grows from turn to turn."""

    # A Topic is emptied in each superstep: a step's replies do not stay in the thread.
    replies: Annotated[list[Reply], Topic(Reply)]
    """The replies of a step's branches, until the step's own node has run."""
    answers: dict[str, AIMessage]
    """The models' own messages, by response id, until the answer is chosen."""
    # It lasts one superstep, as the Topic above.
    doubted: Annotated[str, EphemeralValue]
    """The name of a step whose condition raised an error; the step is entered, and
    fails. After a resume it asks its condition itself."""


def check_input(value: object) -> None:
    """Refuse an input without messages, which LangGraph would take.

    An earlier turn of the thread would be answered again, or an empty conversation.

    Raises:
        InvalidMixtureError: There are none; the message names what was given.

    Example:
        >>> check_input({"question": "Why?"})
        Traceback (most recent call last):
            ...
        langchain_mixture.errors.InvalidMixtureError: messages is missing in the \
input, which has 'question'; allowed: {"messages": [...]}.
    """
    if value is None or isinstance(value, Command):  # a run goes on
        return
    if isinstance(value, Mapping):
        if value.get("messages") is not None:
            return
        given = [shown(key) for key, item in value.items() if item is not None]
        said = f"has {', '.join(given) or 'nothing'}"
    elif hasattr(value, "messages"):  # an outer graph's state may be a dataclass
        return
    else:
        said = f"is {shown(value)}"
    raise InvalidMixtureError(
        f'messages is missing in the input, which {said}; allowed: {{"messages": '
        "[...]}."
    )
