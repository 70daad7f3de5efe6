"""One attempt at a call: what is sent to which agent, and under which config."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.constants import TAG_NOSTREAM

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.agents.wrappers import over_messages, to_schema
from langchain_mixture.callbacks import callbacks_of, handlers_of
from langchain_mixture.compat import is_message_stream
from langchain_mixture.records import Call
from langchain_mixture.running.run import Run
from langchain_mixture.secrets import in_texts


@dataclass(frozen=True)
class Attempt:
    """One attempt at a call: one agent, and everything needed to ask it."""

    agent: ResolvedAgent
    call: Call
    run: Run
    step: str
    """The step's name, such as `1_propose`."""
    index: int
    """The position of the call in its step, from 0."""
    attempt: int
    """0 for the step's agent, 1 and up for its fallbacks."""
    arguments: Mapping[str, Any]
    """The keyword arguments; the caller's override the step's."""
    timeout: float | None
    """Seconds; None = no limit."""
    ends: float | None
    """When its step's share of the deadline ends, on the monotonic clock."""
    refused: str | None
    """Why the budget does not allow this call; None if it does."""
    streams: bool
    """Whether its tokens are streamed as the answer."""
    visible: bool
    """Whether a message stream delivers its tokens."""
    writes: bool
    """Whether it writes text, as opposed to a judgement."""
    alone: bool
    """Whether it is the only call of its step."""
    may_answer: bool
    """Whether the model's own message may become the answer."""

    @property
    def id(self) -> str:
        """The id of the call, and of its response."""
        return f"{self.step}/{self.index}"

    def prepared(
        self, config: RunnableConfig
    ) -> tuple[Runnable[Any, Any], list[BaseMessage]]:
        """Return the Runnable to invoke, and the messages to invoke it with."""
        runnable, messages = self.agent.runnable, [*self.call["messages"]]
        if self.run.request.binds:
            tooled = self._with_tools(config)
            if tooled is None:
                messages = tools_as_text(messages)
            else:
                runnable = tooled
        if "schema" in self.call and not self.may_answer:
            runnable = to_schema(runnable, self.call["schema"], config)
        # A model that answers is shown its own blocks; an adviser may speak the other
        # of OpenAI's two APIs, which have one name and different blocks.
        messages = in_common_blocks(
            messages,
            self.agent.provider,
            also_own=not self.may_answer and self.agent.uses_chat_completions,
        )
        if self.agent.sample > 1 and messages:
            # The prompt cache would give all samples one answer (langchain-core
            # 1.8.3). The mark makes the cache's keys differ, and providers never see
            # response metadata. `test_caches_inside.py` holds it.
            last = messages[-1]
            metadata = {**last.response_metadata, "sample": self.agent.sample}
            marked = last.model_copy(update={"response_metadata": metadata})
            messages = [*messages[:-1], marked]
        if self.agent.is_graph:
            runnable = over_messages(runnable, config)
        if not self.agent.is_model:  # a user's function may change them in place
            messages = [_copied(message) for message in messages]
        return runnable, messages

    def _with_tools(self, config: RunnableConfig) -> Runnable[Any, Any] | None:
        if not self.may_answer and not (self.writes and self.run.request.is_free):
            return None
        runnable = self.agent.runnable
        try:
            return self.run.request.bound(
                runnable, answering=self.may_answer, config=config
            )
        except Exception:  # an adviser is asked without what it cannot bind
            if self.may_answer:
                raise
            return None

    def is_unheard(self, config: RunnableConfig) -> bool:
        """Whether it makes one request, which nobody but this package hears of.

        Its answer, or its error, tells all that callbacks would. Without them a call
        costs a tenth less.
        """
        model = self.agent.plain
        return not (
            model is None
            or self.run.request.binds
            or model.callbacks
            or model.verbose
            or handlers_of(config)
            or self.run.is_watched
        )

    def config(
        self, config: RunnableConfig, handlers: Sequence[BaseCallbackHandler]
    ) -> RunnableConfig:
        """Return the config of the agent's run: marked, and silenced if not visible.

        Args:
            config: The config of the node.
            handlers: Callbacks that record this attempt; none if it is unheard.
        """
        mark = {"mixture_step": self.step, "mixture_agent": self.agent.name}
        metadata = {**(config.get("metadata") or {}), **mark}
        if not handlers:
            return {"metadata": metadata}
        callbacks = callbacks_of(config)
        if not self.visible:
            # The tag below hides tokens, but the handler of a message stream would
            # still make every model stream (langgraph 1.2.24). `test_chat_stream.py`
            # holds it.
            for handler in list(callbacks.handlers):
                if is_message_stream(handler):
                    callbacks.remove_handler(handler)
        # First, so that an abandoned call is stopped before its token reaches a stream.
        callbacks.handlers[:0] = handlers
        callbacks.inheritable_handlers[:0] = handlers
        # There `max_concurrency` is the size of the thread pool. A graph that is an
        # agent gets the caller's own bound back.
        if self.run.has_own_pool:
            config = {**config, "max_concurrency": self.run.max_concurrency}
        return {
            **config,
            "callbacks": callbacks,
            "metadata": metadata,
            "tags": [
                *(config.get("tags") or []),
                *([] if self.visible else [TAG_NOSTREAM]),
            ],
        }


def _copied(message: BaseMessage) -> BaseMessage:
    """Copy a message and the lists and dicts in it, but no text: 5 to 20 µs."""
    fields = {
        name: in_texts(value, str)
        for name, value in vars(message).items()
        if isinstance(value, list | dict)
    }
    return message.model_copy(update=fields)


def in_common_blocks(
    messages: Sequence[BaseMessage], provider: str | None, *, also_own: bool = False
) -> list[BaseMessage]:
    """Return messages without the native blocks of another provider's answers.

    Some providers' packages raise on them, from the second turn on. What is left is
    text, pictures, sound and files; tool calls stand beside the content.

    Args:
        messages: A conversation.
        provider: Whose blocks are left as they are; None = everyone's.
        also_own: Whether this provider's blocks are changed, too.

    Example:
        >>> blocks = [{"type": "thinking", "thinking": "Hm."}, "So."]
        >>> by = {"model_provider": "anthropic"}
        >>> said = AIMessage(blocks, response_metadata=by)
        >>> in_common_blocks([said], "ollama")[0].content
        'So.'
    """
    return [
        _common(message)
        if isinstance(message, AIMessage)
        and not isinstance(message.content, str)
        and (also_own or _is_foreign(message, provider))
        else message
        for message in messages
    ]


def _is_foreign(message: AIMessage, provider: str | None) -> bool:
    written = message.response_metadata.get("model_provider")
    if not isinstance(written, str) or provider is None:
        return False
    # One provider has several names: bedrock_converse is amazon_bedrock's, mistralai
    # is mistral's.
    one, other = (
        {part.removesuffix("ai") for part in re.split(r"[-_]", name)}
        for name in (written, provider)
    )
    return not one & other and {written, provider} != {"azure", "openai"}


def _common(message: AIMessage) -> AIMessage:
    metadata = {**message.response_metadata, "output_version": "v1"}
    content: Any = [b for b in message.content_blocks if b["type"] in _COMMON]
    if all(block["type"] == "text" for block in content):
        content = message.text
        del metadata["output_version"]  # by it, packages expect a list
    return message.model_copy(
        update={"content": content, "response_metadata": metadata}
    )


_COMMON: Final = ("text", "image", "audio", "video", "file", "text-plain")
"""The kinds of blocks that LangChain's packages of providers have in common."""


def tools_as_text(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return a conversation with its tool calls and results as text.

    It is for models that have no tools: many providers refuse tool messages then.

    Example:
        >>> calls = [{"name": "add", "args": {"a": 1}, "id": "1"}]
        >>> talk = [AIMessage("", tool_calls=calls), ToolMessage("2", tool_call_id="1")]
        >>> [message.text for message in tools_as_text(talk)]
        ['[called the tool add with {"a": 1}]', '[the tool add returned] 2']
    """
    names: dict[str | None, str] = {}
    written: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage) and message.tool_calls:
            names |= {call["id"]: call["name"] for call in message.tool_calls}
            calls = [
                f"[called the tool {call['name']} with "
                f"{json.dumps(call['args'], ensure_ascii=False, default=str)}]"
                for call in message.tool_calls
            ]
            text = "\n".join(filter(None, [message.text, *calls]))
            written.append(AIMessage(text, id=message.id))
        elif isinstance(message, ToolMessage):
            tool = names.get(message.tool_call_id) or message.name or "called"
            header = f"[the tool {tool} returned]"
            content: str | list[str | dict[str, Any]] = f"{header} {message.content}"
            if isinstance(message.content, list):  # blocks, which may hold a picture
                content = [{"type": "text", "text": header}, *message.content]
            written.append(HumanMessage(content, id=message.id))
        else:
            written.append(message)
    return written
