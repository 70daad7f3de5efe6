"""The state of the graph: its input, its output, and what its nodes share."""

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
    """The input of the graph."""

    messages: Annotated[list[AnyMessage | MessageLikeRepresentation], add_messages]


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
