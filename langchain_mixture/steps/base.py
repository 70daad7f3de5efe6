"""What a step is: the contract that every step keeps.

A step decides; it does no I/O. The graph asks it which agents it may ask (`bounds`),
what it asks them (`calls`), and what it keeps of the replies (`keep`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_mixture.records import Call, Reply, Response, answered

Agent: TypeAlias = str | Runnable[Any, Any]
"""A chat model, another Runnable from messages to a message or text, a graph with
`messages`, or a name for the client to resolve."""


Prompt: TypeAlias = str | ChatPromptTemplate
"""An instruction, or a template of all that the model is asked."""


Timeout: TypeAlias = float | Literal["default"] | None
"""Seconds per call, None for no limit, or "default" for what stands above it."""


class Step:
    """The contract of a step. Every method has a default; override what differs.

    A transform overrides `keep` alone. A step that asks models overrides `bounds` and
    `calls`, and sets `answers` where what it writes may be the answer. Nothing has to
    be registered: an instance of a subclass is a step.

    `calls` must be pure: it may run more than once, such as after a resume, and must
    give the same calls for the same arguments. A step may ask nobody: where `calls`
    returns none, the default `keep` hands on what the step was given. There are no
    loops in a pipeline: a loop is a list in which steps stand several times over.

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

    answers: ClassVar[bool] = False
    """Whether it writes text for the user (a judge does not)."""
    temp: float | None = None
    """Sampling temperature of its calls; None = the model's own setting."""
    max_tokens: int | None = None
    """Limit of each reply, in tokens; None = the model's own setting."""
    fallbacks: Sequence[Agent] = ()
    """Asked one after the other where the step's only call failed."""
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    quorum: int | None = None
    """How many answers are enough; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        """Return the agents that may be asked, and the most responses that are left.

        The graph has one branch for each of these agents. A step that makes more calls
        than it has agents here, or leaves more responses, fails by its name.

        Args:
            n: The number of responses that can arrive.

        Returns:
            The agents, one a call, in the order of the calls; the responses left.
        """
        return (), n

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        """Return what to ask: the i-th call goes to the i-th agent of `bounds`."""
        return ()

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        """Choose what goes on to the next step.

        Args:
            responses: What the step was given.
            replies: What came of its calls, in their order, failures included.
        """
        return answered(replies) if replies else list(responses)
