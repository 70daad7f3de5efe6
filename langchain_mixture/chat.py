"""ChatMixture: a whole pipeline as a chat model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from langchain_core.language_models import (
    BaseChatModel,
    BaseLanguageModel,
    BaseLLM,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, PrivateAttr, ValidationError

from langchain_mixture.agents.resolve import Client, ResolvedAgent
from langchain_mixture.agents.wrappers import leaves, with_model
from langchain_mixture.errors import (
    InvalidMixtureError,
    StepFailedError,
    nearest,
    shown,
)
from langchain_mixture.graph import build, create_mixture
from langchain_mixture.model.graph_model import GraphChatModel, distinct
from langchain_mixture.model.profile import outline_of, profile_of
from langchain_mixture.options import OnFailure, Options
from langchain_mixture.plan import bounds_of
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.running.mixture_graph import MixtureGraph
from langchain_mixture.running.request import Request
from langchain_mixture.steps.base import Step, Timeout
from langchain_mixture.steps.checks import check_value

_IGNORED: Final = frozenset({"model", "api_key", "max_retries", "streaming"})
"""Keywords of other chat models that have no meaning here."""


Schema = dict[str, Any] | type


Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]


@dataclass
class _Built:
    """A built graph; it is left behind when its model is pickled or copied deep."""

    key: tuple[Any, ...] = ()
    layers: list[Layer] = field(default_factory=list)
    graph: MixtureGraph | None = None

    def is_of(self, key: tuple[Any, ...]) -> bool:
        same = len(key) == len(self.key)
        return same and all(map(lambda a, b: a is b, key, self.key))

    def __reduce__(self) -> tuple[type[_Built], tuple[()]]:
        return _Built, ()


class ChatMixture(GraphChatModel):
    """A mixture wherever a chat model goes.

    It is a `BaseChatModel`: it streams the answer's own tokens, takes tools and
    structured output, and is traced as one model with its graph beneath.

    The message's `response_metadata["mixture"]` has `status`, `reasons` and `usage`.
    Its `usage_metadata` is None, as the models inside report their own tokens;
    `report_usage=True` puts the total there.

    Raises:
        InvalidMixtureError: An argument cannot be used; names are resolved when the
            model is first called. A call raises what the graph raises, see
            `create_mixture`.

    Example:
        ```python
        from langchain_mixture import Aggregate, ChatMixture, Propose

        model = ChatMixture(
            steps=[
                Propose(["openai:gpt-4o", "openai:gpt-4o-mini"]),
                Aggregate("openai:gpt-4o"),
            ]
        )
        print(model.invoke("What is an ion?").text)
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    steps: Sequence[Any]
    """The pipeline."""
    client: Any = None
    """What turns names into models; see `create_mixture`."""
    on_failure: Literal["raise", "keep"] = "raise"
    """Where every call of a step failed, raise, or keep the responses it had."""
    timeout: float | Literal["default"] | None = "default"
    """Seconds per call, between two chunks where the answer streams; None = no limit;
    "default" = 300 for models, none for agents that are graphs."""
    deadline: float | None = None
    """Seconds for a whole call, shared out among the steps; see `create_mixture`."""
    max_calls: int | None = None
    """The most calls to models; see `create_mixture`."""
    max_total_tokens: int | None = None
    """The most tokens of all calls, by estimate; see `create_mixture`."""
    temperature: float | None = None
    """Of the answering step's calls, before the step's own; None = the step's."""
    max_tokens: int | None = None
    """Of the answering step's calls, in tokens; None = the step's own."""
    stop: list[str] | None = None
    """Where the answering step's calls stop writing."""
    report_usage: bool = False
    """Whether the total of all calls is on the message; a callback that adds up
    usage counts it beside the models' own."""
    model_name: str = "langchain-mixture"
    """What traces call it; no known model's name."""

    cache: Literal[False] = False
    """Always off: the models inside keep their own caches."""

    _built: _Built = PrivateAttr(default_factory=_Built)

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        client: Client = None,
        on_failure: OnFailure = "raise",
        timeout: Timeout = "default",
        deadline: float | None = None,
        max_calls: int | None = None,
        max_total_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        known = type(self).model_fields
        own_first = sorted(known, key=lambda name: name in BaseChatModel.model_fields)
        for key in [key for key in kwargs if key not in known]:
            if key not in _IGNORED:
                raise InvalidMixtureError(
                    f"ChatMixture has no field {key!r}; {nearest(key, own_first)}. "
                    "What a graph takes, such as a checkpointer, is for create_mixture."
                )
            warnings.warn(
                f"{key} has no meaning for a ChatMixture and is ignored: set it on the "
                "models of its steps.",
                stacklevel=2,
            )
            del kwargs[key]
        if kwargs.get("cache", False) is not False:
            raise InvalidMixtureError(
                f"ChatMixture: cache is {shown(kwargs['cache'])}; allowed: False. Set "
                "cache on the models of its steps: each keeps its own answers."
            )
        options = Options(on_failure, timeout, deadline, max_calls, max_total_tokens)
        bounds_of(steps, options)
        said = {key: value for key, value in vars(options).items() if key in known}
        for key in kwargs.keys() & {"temperature", "max_tokens"}:
            check_value(kwargs[key], key, "ChatMixture")
        try:
            super().__init__(**{"steps": steps, "client": client, **said, **kwargs})
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # a subclass has a rule of its own
                raise InvalidMixtureError(f"ChatMixture: {first['msg']}.") from error
            raise InvalidMixtureError(
                f"ChatMixture: {first['loc'][0]} is {shown(first['input'])}; "
                f"{first['msg']}."
            ) from error

    # -- The graph -------------------------------------------------------------------

    @property
    def graph(self) -> MixtureGraph:
        """The compiled graph of the same pipeline: to draw, to checkpoint, to serve."""
        return create_mixture(
            self.steps,
            client=self.client,
            name=self.name or "mixture",
            **vars(self._options),
        )

    @property
    def _options(self) -> Options:
        return Options(
            on_failure=self.on_failure,
            timeout=self.timeout,
            deadline=self.deadline,
            max_calls=self.max_calls,
            max_total_tokens=self.max_total_tokens,
        )

    def _compiled(self) -> _Built:
        options = self._options
        key = (*self.steps, self.client, *vars(options).values(), self.name)
        if not self._built.is_of(key):
            layers = layers_of(self.steps, self.client, options)
            graph = build(
                layers,
                checkpointer=False,
                name=self.name or "mixture",
            )
            self._built = _Built(key, layers, graph)
        return self._built

    def _answering(self) -> list[ResolvedAgent]:
        """Give the agents of the answering step, fallbacks included."""
        layers = self._compiled().layers
        layer = next((layer for layer in layers if layer.answering), layers[0])
        return [*layer.agents, *layer.fallbacks]

    # -- Asking ----------------------------------------------------------------------

    def _prepared(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[str, Any], Request]:
        inputs = {"messages": distinct(messages)}
        return self._compiled().graph, inputs, self._request(stop, kwargs)

    def _request(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Request:
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        arguments: dict[str, Any] = {
            key: value for key, value in own.items() if value is not None
        }
        stop = stop or self.stop
        if stop:
            arguments["stop"] = stop
        arguments |= {k: v for k, v in kwargs.items() if k not in (*_TOOLS, "stream")}
        for agent in self._answering() if arguments else ():
            if not agent.is_model:
                raise InvalidMixtureError(
                    f"{', '.join(arguments)} cannot be set for {agent.name!r}, which "
                    "answers: it is no chat model, nor a wrapper of one."
                )
        return Request(
            tools=kwargs.get("tools") or (),
            tool_choice=kwargs.get("tool_choice"),
            binding=kwargs.get("tool_binding") or {},
            arguments=arguments,
        )

    def _message(self, state: dict[str, Any]) -> AIMessage:
        """Make this model's message of the graph's answer."""
        if interrupts := state.get("__interrupt__"):
            raise StepFailedError(
                f"an agent interrupted ({shown(interrupts[0].value)}); a chat model "
                "cannot pause: use create_mixture with a checkpointer, or .graph",
                responses=state.get("mixture", {}).get("responses", []),
                history=state.get("mixture", {}).get("history", []),
            )
        answer: AIMessage = state["messages"][-1]
        metadata = {**answer.response_metadata, "model_name": self.model_name}
        usage = state["mixture"]["usage"]
        keys = ("input_tokens", "output_tokens", "total_tokens")
        total = {key: usage[key] for key in keys} if self.report_usage else None
        return answer.model_copy(
            update={"id": None, "response_metadata": metadata, "usage_metadata": total}
        )

    # -- Tools and structured output -------------------------------------------------

    def bind_tools(
        self,
        tools: Tools,
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the answering step call tools.

        Under a free choice the other steps' models are offered them too, and what they
        would call is written out for the next step; under a forced one (a name, "any",
        True) only the answering step sees them. A model of another step that cannot
        bind tools is asked without, with the tools' history as text.

        Args:
            tools: As for any chat model.
            tool_choice: As the answering model takes it.
            **kwargs: What else its `bind_tools` takes: strict, response_format, …

        Raises:
            InvalidMixtureError: An answering model cannot bind tools.

        Example:
            ```python
            from langchain_mixture import ChatMixture, self_moa

            def add(a: int, b: int) -> int:
                "Add two numbers."
                return a + b

            model = ChatMixture(self_moa("openai:gpt-4o")).bind_tools([add])
            print(model.invoke("What is 2 + 3?").tool_calls)
            ```
        """
        traced = kwargs.pop("ls_structured_output_format", None)
        strict = kwargs.get("strict")
        written = [
            tool  # extras are in the words of a provider, who reads them off the tool
            if isinstance(tool, dict) or getattr(tool, "extras", None)
            else convert_to_openai_tool(tool, strict=strict)
            for tool in tools
        ]
        request = Request(written, tool_choice, kwargs)
        for agent in self._answering():
            try:
                request.bound(agent.runnable, answering=True)
            except NotImplementedError:
                raise InvalidMixtureError(
                    f"{agent.name!r}, which answers, cannot bind tools "
                    f"({shown(next(leaves(agent.runnable)))}); the last step that "
                    "writes needs a model that calls tools."
                ) from None
        bound = {
            "tools": written,
            "tool_choice": tool_choice,
            "tool_binding": kwargs,
            "ls_structured_output_format": traced,
        }
        given = {key: value for key, value in bound.items() if value not in (None, {})}
        return cast("Runnable[LanguageModelInput, AIMessage]", self.bind(**given))

    def with_structured_output(
        self,
        schema: Schema,
        *,
        include_raw: bool = False,
        method: str | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Make the answering step answer in a schema.

        Args:
            schema: A pydantic class, a TypedDict class, or a JSON schema.
            include_raw: Whether to return `raw`, `parsed` and `parsing_error`.
            method: "function_calling" (the default, for every model with tools), or
                what the answering model takes, such as "json_schema".
            strict: Passed to the answering model.
            **kwargs: Passed to the answering model; with another method than
                "function_calling" only.

        Raises:
            InvalidMixtureError: The answering models cannot do it.

        Example:
            ```python
            from pydantic import BaseModel

            from langchain_mixture import ChatMixture, self_moa

            class Ion(BaseModel):
                name: str
                charge: int

            model = ChatMixture(self_moa("openai:gpt-4o")).with_structured_output(Ion)
            ```
        """
        if method not in (None, "function_calling"):
            options = {"method": method, "strict": strict, **kwargs}
            return self._structured_by_model(schema, include_raw, options)
        if kwargs:
            raise InvalidMixtureError(
                f"with_structured_output has no option {min(kwargs)!r} with the method "
                "function_calling; allowed: include_raw, method, strict."
            )
        chain = super().with_structured_output(schema, include_raw=include_raw)
        if strict is None:
            return chain
        tools = [convert_to_openai_tool(schema, strict=strict)]
        strictly = self.bind_tools(tools, tool_choice="any", strict=strict)
        return with_model(chain, lambda _: strictly)

    def _structured_by_model(
        self, schema: Schema, include_raw: bool, options: dict[str, Any]
    ) -> Runnable[LanguageModelInput, Any]:
        """Take the answering model's own way, with this model in its place."""
        given = {key: value for key, value in options.items() if value is not None}
        models = [leaf for m in self._answering() for leaf in leaves(m.runnable)]
        kinds = {type(model) for model in models}
        if len(kinds) > 1 or not isinstance(models[0], BaseChatModel):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InvalidMixtureError(
                f"method is {given['method']!r}, which needs answering models of one "
                f'kind; they are: {names}. Allowed for all: "function_calling".'
            )
        chain = models[0].with_structured_output(
            schema, include_raw=include_raw, **given
        )
        return with_model(chain, lambda bound: self.bind(**bound.kwargs))

    # -- Identity --------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "langchain-mixture"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Names and sizes, for traces; no model's settings, which may hold secrets."""
        return {
            "model_name": self.model_name,
            "steps": outline_of(self.steps),
            **vars(self._options),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "report_usage": self.report_usage,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' → '.join(outline_of(self.steps))})"

    __str__ = __repr__

    def get_token_ids(self, text: str) -> list[int]:
        """Encode a text as the answering model does."""
        model = self._counting()
        return (
            super().get_token_ids(text) if model is None else model.get_token_ids(text)
        )

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count as the answering model does, or by estimate where it is no model."""
        model = self._counting()
        if model is None:
            return count_tokens_approximately(messages)
        return model.get_num_tokens_from_messages(messages, tools)

    def _counting(self) -> BaseLanguageModel[Any] | None:
        first = next(leaves(self._answering()[0].runnable))
        return first if isinstance(first, BaseChatModel | BaseLLM) else None

    def _resolve_model_profile(self) -> ModelProfile | None:
        """Tell what this mixture can do, as far as its agents are at hand."""
        return profile_of(self.steps, self.client)


_TOOLS: Final = ("tools", "tool_choice", "tool_binding")
