"""How a message ends: whole, cut off, or as a refusal, in each provider's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from langchain_core.messages import AIMessage

NO_WORDS: Final = "no reason given"


def ending(message: AIMessage) -> str | None:
    """Return why a model stopped writing, as its provider says it; None if it does not.

    Example:
        >>> ending(AIMessage("An", response_metadata={"stopReason": "max_tokens"}))
        'max_tokens'
    """
    metadata = message.response_metadata
    details = metadata.get("incomplete_details")  # OpenAI's Responses API
    if details and isinstance(details, Mapping) and details.get("reason"):
        return str(details["reason"])
    for key in _KEYS:
        if told := metadata.get(key):
            # Gemini's may be an enum, or the text of one.
            return str(getattr(told, "name", told)).rsplit(".", 1)[-1]
    return "incomplete" if metadata.get("status") == "incomplete" else None


def cut_off(message: AIMessage) -> str | None:
    """Return what cut a message off, in words; None if it is whole.

    Example:
        >>> cut_off(AIMessage("An", response_metadata={"finish_reason": "length"}))
        'at its token limit'
    """
    told = ending(message)
    return None if told is None else _CUTS.get(told.lower())


def refusal(message: AIMessage) -> str | None:
    """Return the words of a refusal; None if a message is none.

    Example:
        >>> refusal(AIMessage([{"type": "refusal", "refusal": "I will not."}]))
        'I will not.'
    """
    words = message.additional_kwargs.get("refusal")  # OpenAI's chat API
    if isinstance(words, str) and words:
        return words
    blocks = message.content if isinstance(message.content, list) else ()
    for block in blocks:  # OpenAI's Responses API, and core's standard block
        if isinstance(block, Mapping) and block.get("type") == "non_standard":
            block = block.get("value") or {}  # noqa: PLW2901  # the block inside
        if isinstance(block, Mapping) and block.get("type") == "refusal":
            return str(block.get("refusal") or message.text or NO_WORDS)
    if ending(message) == "refusal":  # Anthropic
        details = message.response_metadata.get("stop_details")
        words = details.get("explanation") if isinstance(details, Mapping) else None
        return str(words or message.text or NO_WORDS)
    return None


def explained(message: AIMessage) -> bool:
    """Whether a provider says why it wrote no text: a filter, or a malformed call.

    Example:
        >>> explained(AIMessage("", response_metadata={"finish_reason": "SAFETY"}))
        True
    """
    told = (ending(message) or "").lower()
    return told in _MALFORMED or _CUTS.get(told) == _FILTER


_KEYS: Final = (
    "finish_reason",  # OpenAI, Gemini, Mistral, Cohere and most others
    "stop_reason",  # Anthropic
    "stopReason",  # Bedrock
    "done_reason",  # Ollama
)


AT_LIMIT: Final = "at its token limit"


_FILTER: Final = "by a content filter"


_CUTS: Final[Mapping[str, str]] = {
    "length": AT_LIMIT,
    "max_tokens": AT_LIMIT,
    "max_output_tokens": AT_LIMIT,  # OpenAI's Responses API
    "model_length": AT_LIMIT,  # Mistral
    "model_context_window_exceeded": AT_LIMIT,  # Anthropic
    "content_filter": _FILTER,
    "content_filtered": _FILTER,  # Bedrock
    "guardrail_intervened": _FILTER,  # Bedrock
    "error_toxic": _FILTER,  # Cohere
    "safety": _FILTER,  # Gemini, and the next four
    "recitation": _FILTER,
    "blocklist": _FILTER,
    "prohibited_content": _FILTER,
    "spii": _FILTER,
    "incomplete": "by its provider",
}


_MALFORMED: Final = ("malformed_function_call", "unexpected_tool_call")
"""Gemini's words for a call that it does not hand on."""
