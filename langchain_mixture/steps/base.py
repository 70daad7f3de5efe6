"""The contract of a step.

A step decides and does no I/O. `bounds` returns the agents that it may ask, `calls` the
calls to make, and `keep` the responses that go on to the next step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_mixture.records import Call, Reply, Response, answered

Agent: TypeAlias = str | Runnable[Any, Any]
"""A chat model, another Runnable from messages to a message or text, a graph with
`messages`, or a name for the client to resolve."""


Prompt: TypeAlias = str | ChatPromptTemplate
"""An instruction, or a template of all the messages that a model is sent."""


Place: TypeAlias = Literal["conversation", "system"]
"""Where a model is shown responses: joined to the user's message, or in the system
message behind the instruction, which is the papers' layout."""


View: TypeAlias = (
    Runnable[Any, Any] | Callable[[list[BaseMessage]], Sequence[BaseMessage]]
)
"""From the messages of a conversation to those that an agent is shown."""


Timeout: TypeAlias = float | Literal["default"] | None
"""Seconds per call, None for no limit, or "default".

The default of a step is the mixture's timeout. The default of a mixture is 300 seconds
for models and no limit for agents that are graphs."""


Condition: TypeAlias = Callable[..., bool | Awaitable[bool]]
"""A function of the responses, in the order of the list, sync or async: whether they
are enough. As a quorum, one with the parameter `pending` is also given the open calls,
each as the place in the responses that its answer would take."""


class Step:
    """The base class of steps. Every method has a default; override what differs.

    A transform overrides only `keep`. A step that makes calls overrides `bounds` and
    `calls`, and sets `answers` if its text may be the answer. A subclass needs no
    registration.

    `calls` must be pure. It may run more than once, for example after a resume, and
    must return the same calls for the same arguments. It may return no calls at all;
    the default `keep` then passes on the responses that the step was given. To repeat
    steps, repeat them in the list, or use `until`.

    Example:
        ```python
        from dataclasses import dataclass

        from langchain_core.messages import SystemMessage

        from langchain_mixture import Agent, Call, Step

        @dataclass(frozen=True)
        class Longest(Step):
            def keep(self, responses, replies):
                return [max(responses, key=lambda response: len(response["text"]))]

        @dataclass(frozen=True)
        class Criticize(Step):
            critic: Agent

            answers = True

            def bounds(self, n):
                return [self.critic] * n, n

            def calls(self, conversation, responses):
                return [
                    Call(
                        messages=[
                            SystemMessage(f"Criticize this: {response['text']}"),
                            *conversation,
                        ],
                        parents=[response["id"]],
                    )
                    for response in responses
                ]
        ```
    """

    # Class attributes and not fields: a subclass decides which of them its users may
    # set, and in which order.
    answers: ClassVar[bool] = False
    """Whether its text may be the answer (a judge's may not)."""
    temp: float | None = None
    """Sampling temperature of its calls; None = the model's own setting."""
    max_tokens: int | None = None
    """Limit of each reply, in tokens; None = the model's own setting."""
    fallbacks: Sequence[Agent] = ()
    """Agents to ask in turn if the step's call fails."""
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    quorum: int | Condition | None = None
    """The number of answers that is enough, or a condition; None = wait for all."""
    grace: float = 0.0
    """Seconds that the other calls have left once the quorum is met."""
    unless: Condition | None = None
    """The step is skipped where this is true of the responses that it would be given.
    The step before it asks; the first step is never skipped."""
    add: bool = False
    """Whether `keep` also returns the responses that the step was given."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        """Return the agents that the step may ask, and the most responses it may keep.

        The graph has one branch per agent. A step that makes more calls, or keeps more
        responses, than it declares here raises `StepFailedError` with its name.

        Args:
            n: The most responses that the step can be given.

        Returns:
            The agents, one per call and in the order of the calls; the most responses.
        """
        return (), n

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        """Return the calls to make: the i-th one goes to the i-th agent of `bounds`.

        Args:
            conversation: The messages of the thread.
            responses: The responses of the step before; none for the first step.
        """
        return ()

    def block(self, responses: Sequence[Response]) -> str | None:
        """Return what its calls join to the conversation of responses, word for word.

        It stays there in the later requests of an agent, which then begin with the
        whole of the ones before. None: they join nothing.
        """
        return None

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        """Return the responses that go on to the next step.

        Args:
            responses: The responses of the step before.
            replies: The replies to this step's calls, in order, failures included.
        """
        return answered(replies) if replies else list(responses)
