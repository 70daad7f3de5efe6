"""What the models of an agent report: their messages and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult

from langchain_mixture.records import Reported, summed


class Reports(BaseCallbackHandler):
    """Collects the answers of all models that an agent asks.

    A chain or a graph may ask several and return the last one's message, and may fail
    after some of them have answered.
    """

    # Without it, core runs a sync handler in the event loop's thread pool, which calls
    # that hang may fill: the run would hang too (langchain-core 1.8.3).
    # `test_limits.py` holds it.
    run_inline = True
    ignore_chat_model = True  # as in `reply.py`, `_Redactor`

    def __init__(self) -> None:
        self.messages: list[AIMessage] = []
        """Without those of mixtures, which have no tokens of their own: their models
        report theirs."""
        self._last: AIMessage | None = None

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        # Where one request asks for several answers, each has the tokens of all.
        for generation in response.generations[0][:1] if response.generations else ():
            message = getattr(generation, "message", None)
            if isinstance(message, AIMessage):
                self._last = message
                if not mixture_of(message):
                    self.messages.append(message)

    def metadata_of(self, text: str) -> dict[str, Any]:
        """Return the metadata of the message that a parser made this text of."""
        last = self._last  # another thread may set it
        if last is None or last.text != text:
            return {}
        return dict(last.response_metadata)


def mixture_of(message: AIMessage | None) -> Mapping[str, Any]:
    """Return the `mixture` metadata of a mixture's answer; else empty."""
    metadata = None if message is None else message.response_metadata.get("mixture")
    return metadata if isinstance(metadata, dict) else {}


def is_cached(message: AIMessage) -> bool:
    """Whether a message came from LangChain's LLM cache.

    Core gives it a cost of zero beside the tokens of the first answer, which are not
    read and written again (langchain-core 1.8.3). `test_costs.py` holds it.
    """
    return "total_cost" in (message.usage_metadata or {})


def reported_by(messages: Sequence[AIMessage]) -> list[Reported]:
    """Return the tokens of messages, added up by model.

    Zeros alone count as no report.

    Example:
        >>> usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        >>> reported_by([AIMessage("Hi", usage_metadata=usage)] * 2)
        [{'input_tokens': 6, 'output_tokens': 4, 'total_tokens': 10}]
    """
    found: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for message in messages:
        usage = message.usage_metadata
        if usage and any(usage.values()) and not is_cached(message):
            found.setdefault(model_of(message), []).append(usage)
    return [_added(*model, usages) for model, usages in found.items()]


def model_of(message: AIMessage) -> tuple[str | None, str | None]:
    """Return the names of the model and its provider, as a message gives them."""
    metadata = message.response_metadata
    # Some providers' packages say `model` where others say `model_name`.
    names = (metadata.get("model_name"), metadata.get("model"))
    name = next((each for each in names if isinstance(each, str) and each), None)
    provider = metadata.get("model_provider")
    return name, provider if isinstance(provider, str) and provider else None


def inner_reports(message: AIMessage) -> list[Reported]:
    """Return the tokens by agent that a mixture's answer tells of, if it is one.

    A mixture in another process reports nothing to callbacks here.
    """
    usage = mixture_of(message).get("usage") or {}
    if "models" not in usage:  # of a graph's answer; its state has them
        return [_added(None, None, [usage])] if usage.get("total_tokens") else []
    models = usage["models"]
    return [
        _added(name, None, [tokens])
        for name, tokens in models.items()
        if tokens["total_tokens"]
    ]


def _added(
    name: str | None, provider: str | None, usages: Sequence[Mapping[str, Any]]
) -> Reported:
    added = Reported(input_tokens=0, output_tokens=0, total_tokens=0)
    for usage in usages:
        read, written = usage["input_tokens"], usage["output_tokens"]
        added["input_tokens"] += read
        added["output_tokens"] += written
        added["total_tokens"] += usage.get("total_tokens") or read + written
    if name is not None:
        added["model_name"] = name
    if provider is not None:
        added["model_provider"] = provider
    if details := summed([usage.get("input_token_details") for usage in usages]):
        added["input_token_details"] = details
    if details := summed([usage.get("output_token_details") for usage in usages]):
        added["output_token_details"] = details
    return added
