"""ChatMixture: a whole pipeline as a chat model."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from langchain_core.language_models import (
    BaseChatModel,
    BaseLanguageModel,
    BaseLLM,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool, convert_runnable_to_tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from langchain_mixture.advice import (
    advised,
    carrying,
    fingerprint,
    is_of_a_mixture,
)
from langchain_mixture.agents.resolve import Client, ResolvedAgent
from langchain_mixture.agents.wrappers import with_model, with_usage
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
from langchain_mixture.plan import bounds_of, names_of
from langchain_mixture.prices import Prices
from langchain_mixture.runnables import leaves, unwrapped
from langchain_mixture.running.cards import card
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.running.mixture_graph import MixtureGraph
from langchain_mixture.running.request import Request, binds_tools
from langchain_mixture.running.run import Run, StepOutline
from langchain_mixture.running.state import NOTHING, AdvisedInput
from langchain_mixture.steps.base import Timeout
from langchain_mixture.steps.checks import check_value, names_told
from langchain_mixture.steps.program import Steps, flat

_IGNORED: Final = frozenset({"model", "api_key", "max_retries", "streaming"})
"""Keywords of other chat models, ignored with a warning."""


Schema = dict[str, Any] | type


Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]


@dataclass
class _Built:
    """A built graph; it is dropped when its model is pickled or copied deep."""

    key: tuple[Any, ...] = ()
    layers: list[Layer] = field(default_factory=list)
    graph: MixtureGraph | None = None
    advised: MixtureGraph | None = None
    """The graph from the answering step on, for advice that is taken over."""
    by: str = ""
    """Tells the pipeline's advice from that of others; empty where it has none."""

    def is_of(self, key: tuple[Any, ...]) -> bool:
        # Identity and not equality: steps and clients may be objects of any kind, and
        # a changed field of the model must build a new graph.
        same = len(key) == len(self.key)
        return same and all(map(lambda a, b: a is b, key, self.key))

    def __reduce__(self) -> tuple[type[_Built], tuple[()]]:
        return _Built, ()


@dataclass(frozen=True)
class _ToolBinding:
    """What `bind_tools` was given, beside the tools as traces show them."""

    written: Sequence[Any] = ()
    given: Sequence[Any] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class ChatMixture(GraphChatModel):
    """A whole pipeline as a chat model.

    It is a `BaseChatModel`: it streams the answer's own tokens, takes tools and
    structured output, and is traced as one model with its graph beneath.

    The message's `response_metadata["mixture"]` has `status`, `reasons` and `usage`.
    Its `usage_metadata` has the tokens of the call that wrote the answer, which is what
    middleware needs to compact a conversation in time; callbacks and traces have them
    from the model inside, once. `report_usage=True` puts the total of all calls there,
    for callbacks, too.

    Raises:
        InvalidMixtureError: An argument cannot be used. Names are resolved when the
            model is first called. A call raises the errors of its graph; see
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
    """Turns names into models; see `create_mixture`."""
    on_failure: Literal["raise", "keep"] = "raise"
    """If all calls of a step fail: raise, or keep the responses it was given."""
    timeout: float | Literal["default"] | None = "default"
    """Seconds per call, or between two chunks of a streamed answer; None = no limit;
    "default" = 300 for models, no limit for agents that are graphs."""
    deadline: float | None = None
    """Seconds for the whole run, shared out among the steps; see `create_mixture`."""
    max_calls: int | None = None
    """The maximum number of calls to agents; see `create_mixture`."""
    max_total_tokens: int | None = None
    """The maximum of tokens in all calls, by estimate; see `create_mixture`."""
    max_cost: float | None = None
    """The maximum of US dollars for all calls, by estimate; see `create_mixture`."""
    prices: Any = None
    """What tokens cost; see `create_mixture`. Given, the message's metadata has `cost`
    beside `usage`."""
    temperature: float | None = None
    """Sampling temperature of the answering step's calls; None = the step's own."""
    max_tokens: int | None = None
    """Limit of the answer, in tokens; None = the answering step's own."""
    stop: list[str] | None = None
    """Strings at which the answering step's calls stop writing."""
    consult: Any = "turn"
    """When the advisers, the steps before the answering one, are asked: "turn" = once
    when the user has spoken, and not again while tools are called; n = anew after n
    answers (1 = at every call); a function of the messages = when it returns True.
    Otherwise the answering model goes on with the advice that was given."""
    report_usage: bool = False
    """Whether the message carries the total of all calls. A callback that adds up
    usage would then count every token twice."""
    model_name: str = "langchain-mixture"
    """The model's name in traces. A known model's name would be given its price."""

    cache: Literal[False] = False
    """Always off: the models inside keep their own caches."""

    _built: _Built = PrivateAttr(default_factory=_Built)

    def __init__(
        self,
        steps: Steps,
        *,
        client: Client = None,
        on_failure: OnFailure = "raise",
        timeout: Timeout = "default",
        deadline: float | None = None,
        max_calls: int | None = None,
        max_total_tokens: int | None = None,
        max_cost: float | None = None,
        prices: Prices | None = None,
        **kwargs: Any,
    ) -> None:
        known = type(self).model_fields
        own_first = sorted(known, key=lambda name: name in BaseChatModel.model_fields)
        for key in [key for key in kwargs if key not in known]:
            if key not in _IGNORED:
                raise InvalidMixtureError(
                    f"ChatMixture has no field {key!r}; {nearest(key, own_first)}. "
                    "Options of a graph, such as a checkpointer, go to create_mixture."
                )
            warnings.warn(
                f"ChatMixture ignores {key}: set it on the models of its steps.",
                stacklevel=2,
            )
            del kwargs[key]
        if kwargs.get("cache", False) is not False:
            raise InvalidMixtureError(
                f"ChatMixture: cache is {shown(kwargs['cache'])}; allowed: False. Set "
                "cache on the models of its steps: each keeps its own answers."
            )
        options = Options(
            on_failure,
            timeout,
            deadline,
            max_calls,
            max_total_tokens,
            max_cost,
            prices,
        )
        steps = flat(steps)
        agents, left = bounds_of(steps, options)[-1]
        limits = {key: value for key, value in vars(options).items() if key in known}
        for key in kwargs.keys() & {"temperature", "max_tokens", "consult"}:
            check_value(kwargs[key], key, "ChatMixture")
        try:
            super().__init__(**{"steps": steps, "client": client, **limits, **kwargs})
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # a subclass has a rule of its own
                raise InvalidMixtureError(f"ChatMixture: {first['msg']}.") from error
            raise InvalidMixtureError(
                f"ChatMixture: {first['loc'][0]} is {shown(first['input'])}; "
                f"{first['msg']}."
            ) from error
        # A judge, which asks and does not write, puts the best one first.
        if left > 1 and (steps[-1].answers or not agents):
            warnings.warn(
                f"ChatMixture: {names_of(steps)[-1]}, the last step, can leave {left} "
                "responses; the first one is the answer, and the others are paid for "
                "in vain. Add a step that leaves one, such as Aggregate(agent), "
                "Vote(agent), Rank(agent, 1) or Take(1).",
                stacklevel=2,
            )

    # -- The graph -------------------------------------------------------------------

    @property
    def graph(self) -> MixtureGraph:
        """A new graph of the same pipeline, to draw, checkpoint or serve."""
        return create_mixture(
            self.steps,
            client=self.client,
            name=self.name,
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
            max_cost=self.max_cost,
            prices=self.prices,
        )

    def _compiled(self) -> _Built:
        options = self._options
        key = (*self.steps, self.client, *vars(options).values(), self.name)
        if not self._built.is_of(key):
            layers = layers_of(self.steps, self.client, options)
            name = self.name or "mixture"
            first = next((k for k, x in enumerate(layers) if x.advised), 0)
            # The graph from there on cannot skip the step that it begins with.
            has_advisers = first > 0 and layers[first].step.unless is None
            self._built = _Built(key, layers, build(layers, name=name))
            if has_advisers:
                rest = build(layers[first:], input_schema=AdvisedInput, name=name)
                self._built.advised = rest
                self._built.by = fingerprint(name, layers)
        return self._built

    def _answering(self) -> list[ResolvedAgent]:
        """Return the agents that may answer, fallbacks too; those of the last first."""
        layers = self._compiled().layers
        found = [x for x in layers[::-1] if x.answering] or layers[:1]
        return [agent for x in found for agent in (*x.agents, *x.fallbacks)]

    # -- Asking ----------------------------------------------------------------------

    def _prepared(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[str, Any], Request]:
        built = self._compiled()
        request = self._request(stop, kwargs)
        inputs: dict[str, Any] = {"messages": distinct(messages)}
        if not built.by:
            return built.graph, inputs, request
        about = advised(messages, self.consult, built.by, counts=is_of_a_mixture)
        request = replace(request, advised=about)
        if about.asks:
            return built.graph, inputs, request
        responses = [] if about.now is None else list(about.now.responses)
        inputs["mixture"] = {**NOTHING, "responses": responses}
        return built.advised, inputs, request

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
                    "answers: it is not a chat model, nor a wrapper of one."
                )
        tools = kwargs.get("tools") or ()
        binding = kwargs.get("tool_binding") or _ToolBinding()
        return Request(
            tools=binding.given if tools is binding.written else tools,
            tool_choice=kwargs.get("tool_choice"),
            binding=binding.options,
            arguments=arguments,
        )

    def _message(self, state: dict[str, Any], run: Run) -> AIMessage:
        """Return the graph's answer as this model's message."""
        if interrupts := state.get("__interrupt__"):
            raise StepFailedError(
                f"an agent interrupted ({shown(interrupts[0].value)}); a chat model "
                "cannot pause: use create_mixture with a checkpointer, or .graph",
                responses=state.get("mixture", {}).get("responses", []),
                history=state.get("mixture", {}).get("history", []),
            )
        answer: AIMessage = state["messages"][-1]
        run.answer_usage = answer.usage_metadata
        about = run.request.advised
        # Carried once: in each answer of a turn it would multiply what a thread keeps.
        rests = about is not None and about.asks
        if rests and (answer.tool_calls or self.consult != "turn"):
            answer = carrying(answer, run.advice, self._compiled().by)
        # An id that core made of the inner run is not the provider's: core makes one of
        # this model's run.
        made = (answer.id or "run").startswith(("run", "lc_run"))
        usage = state["mixture"]["usage"]
        answer = with_usage(answer, usage)
        metadata = {**answer.response_metadata, "model_name": self.model_name}
        total = None
        if self.report_usage:
            known = UsageMetadata.__annotations__.keys() & usage.keys()
            total = {key: usage[key] for key in known}
            for own in _OWN_TOKENS & metadata.keys():
                del metadata[own]
        return answer.model_copy(
            update={
                "id": None if made else answer.id,
                "response_metadata": metadata,
                "usage_metadata": total,
            }
        )

    # -- Tools and structured output -------------------------------------------------

    def bind_tools(
        self,
        tools: Tools,
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools, which the answering step may call.

        If the choice is free, the other steps' models get the tools too. They do not
        run them: their tool calls become text for the next step. If the choice is
        forced (a name, "any", True), only the answering step gets the tools. A model
        of another step that cannot bind tools reads the tools' history as text.

        Args:
            tools: As for any chat model.
            tool_choice: As the answering model takes it.
            **kwargs: Passed to the answering model's `bind_tools`: strict, …

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
            tool
            if isinstance(tool, dict)
            else convert_to_openai_tool(tool, strict=strict)
            for tool in tools
        ]
        for agent in self._answering():
            if not all(map(binds_tools, unwrapped(agent.runnable))):
                raise InvalidMixtureError(
                    f"{agent.name!r}, which answers, cannot bind tools "
                    f"({shown(next(leaves(agent.runnable)))}); the last step that "
                    "writes needs a model that calls tools."
                )
        bound = {
            "tools": written,  # for traces, and for those who look at what is bound
            "tool_choice": tool_choice,
            "tool_binding": _ToolBinding(written, tools, kwargs),
            "ls_structured_output_format": traced,
        }
        given = {key: value for key, value in bound.items() if value is not None}
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
        """Return this model with an answer that follows a schema.

        Args:
            schema: A pydantic class, a TypedDict class, or a JSON schema.
            include_raw: Whether to return `raw`, `parsed` and `parsing_error`.
            method: A method of the answering model, such as "json_schema". The default
                is the model's own default, and "function_calling" where the answering
                models are of several classes or have none.
            strict: Passed to the answering model.
            **kwargs: Passed to the answering model by a method that is named, unless
                that is "function_calling".

        Raises:
            InvalidMixtureError: The answering models do not support it.

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
        options = {"method": method, "strict": strict, **kwargs}
        if method not in (None, "function_calling"):
            return self._structured_by_model(schema, include_raw, options)
        if kwargs:
            raise InvalidMixtureError(
                f"with_structured_output has no option {min(kwargs)!r} for "
                f"{'the method ' + method if method else 'its default method'}; "
                "allowed: include_raw, method, strict."
            )
        with suppress(InvalidMixtureError, TypeError):  # as the model's own would ask
            return self._structured_by_model(schema, include_raw, options)
        chain = super().with_structured_output(schema, include_raw=include_raw)
        if strict is None:
            return chain
        # Core's own method drops `strict` without a word, so the tool is bound again
        # with it (langchain-core 1.8.3). `test_chat_structured.py` holds it.
        tools = [convert_to_openai_tool(schema, strict=strict)]
        strictly = self.bind_tools(tools, tool_choice="any", strict=strict)
        return with_model(chain, lambda _: strictly)

    def _structured_by_model(
        self, schema: Schema, include_raw: bool, options: dict[str, Any]
    ) -> Runnable[LanguageModelInput, Any]:
        """Use the answering model's own method, with this model in its place."""
        given = {key: value for key, value in options.items() if value is not None}
        models = [leaf for m in self._answering() for leaf in leaves(m.runnable)]
        kinds = {type(model) for model in models}
        if len(kinds) > 1 or not isinstance(models[0], BaseChatModel):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InvalidMixtureError(
                f"method is {options['method']!r}, which needs answering models of one "
                f'class; they are: {names}. Allowed for all: "function_calling".'
            )
        method = type(models[0]).with_structured_output
        if "method" not in inspect.signature(method).parameters:
            raise InvalidMixtureError(
                f"{type(models[0]).__name__}.with_structured_output has no method; "
                'allowed: "function_calling".'
            )
        chain = models[0].with_structured_output(
            schema, include_raw=include_raw, **given
        )
        return with_model(chain, lambda bound: self.bind(**bound.kwargs))

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """Return this model as a tool: an agent asks the panel a question.

        Args:
            args_schema: What the tool takes; None = one text, `question`. Several
                values become lines of "name: value" in the question.
            name: The tool's name; None = the model's.
            description: What the agent's model is told about the tool.
            arg_types: In place of `args_schema`: the values' names and types.

        Example:
            ```python
            from langchain.agents import create_agent

            from langchain_mixture import ChatMixture, self_moa

            model = ChatMixture(self_moa("openai:gpt-4o"))
            panel = model.as_tool(name="panel", description="Ask a panel of experts.")
            agent = create_agent("openai:gpt-4o-mini", [panel])
            ```
        """
        if args_schema is None and arg_types is None:
            arg_types = {"question": str}
        return convert_runnable_to_tool(
            RunnableLambda(_question) | self | StrOutputParser(),
            args_schema,
            name=name or self.get_name(),
            description=description or "Ask a panel of models a question.",
            arg_types=arg_types,
        )

    # -- Identity --------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "langchain-mixture"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """The pipeline as traces show it: names and sizes, no settings of models.

        Core's default is the serialized form, which holds headers, base URLs and bound
        keys (langchain-core 1.8.3). `test_chat_fields.py` holds it.
        """
        return {
            "model_name": self.model_name,
            "steps": outline_of(self.steps),
            **{k: v for k, v in vars(self._options).items() if k != "prices"},
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "report_usage": self.report_usage,
        }

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Leave out of traces what is for this class alone."""
        kwargs.pop("tool_binding", None)
        return super()._get_invocation_params(stop=stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        """Name the answering model's provider: its messages are said to be of it."""
        params = super()._get_ls_params(stop=stop, **kwargs)
        with suppress(InvalidMixtureError):
            if (provider := self._answering()[0].provider) is not None:
                params["ls_provider"] = provider
        return params

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' → '.join(outline_of(self.steps))})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return what a notebook shows; no model is made for it."""
        steps = flat(self.steps)
        agents = (agents for agents, _ in bounds_of(steps, self._options))
        outlines: list[StepOutline] = [
            {"name": name, "step": type(step).__name__, "agents": names_told(some)}
            for name, step, some in zip(names_of(steps), steps, agents, strict=True)
        ]
        return card(self.name or type(self).__name__, outlines)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, as the answering model encodes it."""
        model = self._counting()
        return (
            super().get_token_ids(text) if model is None else model.get_token_ids(text)
        )

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return the count of the answering model, or an estimate if it has none."""
        model = self._counting()
        if model is None:
            return count_tokens_approximately(messages)
        return model.get_num_tokens_from_messages(messages, tools)

    def _counting(self) -> BaseLanguageModel[Any] | None:
        first = next(leaves(self._answering()[0].runnable))
        return first if isinstance(first, BaseChatModel | BaseLLM) else None

    def _resolve_model_profile(self) -> ModelProfile | None:
        """Return what this mixture can do, as far as its models are known."""
        return profile_of(self.steps, self.client)


def _question(arguments: dict[str, Any]) -> str:
    """Return a tool's arguments as a question."""
    if len(arguments) == 1:
        return str(*arguments.values())
    return "\n".join(f"{name}: {value}" for name, value in arguments.items())


_OWN_TOKENS: Final = frozenset(
    {"token_usage", "usage", "token_count", "eval_count", "prompt_eval_count"}
)
"""Where providers have the tokens of one call: OpenAI, Anthropic, Cohere, Ollama."""


_TOOLS: Final = ("tools", "tool_choice", "tool_binding")
