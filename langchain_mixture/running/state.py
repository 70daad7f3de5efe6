"""What goes into the graph, what its nodes share, and what comes out."""

from __future__ import annotations

import operator
from typing import Annotated, Final

from langchain_core.messages import AIMessage, AnyMessage, MessageLikeRepresentation
from langgraph.channels import Topic
from langgraph.graph import add_messages
from typing_extensions import TypedDict

from langchain_mixture.records import Reply, Result, usage_of

NOTHING: Final = Result(
    status="complete", reasons=[], responses=[], history=[], usage=usage_of([])
)


class MixtureInput(TypedDict):
    """What goes into the graph."""

    messages: Annotated[list[AnyMessage | MessageLikeRepresentation], add_messages]


class MixtureOutput(TypedDict):
    """What comes out of it."""

    messages: Annotated[list[AnyMessage], add_messages]
    mixture: Annotated[Result, operator.or_]


class MixtureState(MixtureOutput):
    """What the nodes share. Nothing in it grows from turn to turn but the messages."""

    replies: Annotated[list[Reply], Topic(Reply)]
    """What the branches of a step got; it lives until the step's own node has run."""
    answers: dict[str, AIMessage]
    """The models' own messages, by response id, until the answer is chosen."""
