"""ChatMixture asked: each way of asking, conversations, settings, usage."""

from typing import Any

import pytest
from langchain_core.callbacks import (
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    NoResponsesError,
    Propose,
    Synthesize,
    Take,
    create_mixture,
)
from tests.models import Scripted, Streaming, called, mixture, models, over
from tests.openai_stub import serve


async def test_every_way_of_asking_gives_the_answer() -> None:
    """invoke, stream, batch, sync and async, in a chain: the answering model's text."""
    model = mixture()
    chain = ChatPromptTemplate.from_template("{q}") | model | StrOutputParser()
    assert model.invoke("Why?").text == "c answers"
    assert (await model.ainvoke("Why?")).text == "c answers"
    assert [m.text for m in model.batch(["1", "2"])] == ["c answers"] * 2
    assert [m.text for m in await model.abatch(["1", "2"])] == ["c answers"] * 2
    assert "".join(c.text for c in model.stream("Why?")) == "c answers"
    assert "".join([c.text async for c in model.astream("Why?")]) == "c answers"
    assert chain.invoke({"q": "Why?"}) == "c answers"
    assert "".join(chain.stream({"q": "Why?"})) == "c answers"
    assert "".join([c async for c in chain.astream({"q": "Why?"})]) == "c answers"


async def test_the_message_tells_how_the_answer_came_about() -> None:
    """Status, reasons and usage are in its metadata, asked or streamed."""
    model = mixture()
    chunks = [chunk async for chunk in model.astream("Why?")]
    streamed: Any = sum(chunks[1:], start=chunks[0])
    for message in (model.invoke("Why?"), streamed):
        about = message.response_metadata["mixture"]
        assert (about["status"], about["reasons"]) == ("complete", [])
        assert about["usage"]["models"]["a"]["total_tokens"] == 15
        assert message.response_metadata["model_name"] == "langchain-mixture"
    total = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    assert model.invoke("Why?").usage_metadata == total  # of the call that wrote it
    assert streamed.usage_metadata is None  # the model inside reports none
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.chunk_position for chunk in chunks].count("last") == 1


def test_conversations_reach_the_models_as_they_are() -> None:
    """Turns, two system messages, images and tool results pass through untouched."""
    model = mixture()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    talk = [
        SystemMessage("One."),
        SystemMessage("Two."),
        HumanMessage([{"type": "text", "text": "What is it?"}, image]),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage("a dot", tool_call_id="1"),
        AIMessage("A dot."),
        HumanMessage("Sure?"),
    ]
    model.invoke(talk)
    assert [m.id for m in talk] == [None] * len(talk)
    asked, fused = (
        [m.model_copy(update={"id": None}) for m in model.client[name].asked[0]]
        for name in "ac"
    )
    assert asked == talk
    assert fused[0].text.startswith("One.\n\nOther models")
    assert fused[1:-1] == talk[1:-1]
    assert fused[-1].text.startswith("Sure?\n\nThere are 2 responses.")


def test_messages_that_share_an_id_are_all_there() -> None:
    """The same message twice stays two turns, and an answer never replaces one."""
    model = mixture()
    hello = HumanMessage("Hello?", id="1")
    answer = model.invoke([hello, AIMessage("Yes?", id="2"), hello])
    texts = [message.text for message in model.client["a"].asked[0]]
    assert texts == ["Hello?", "Yes?", "Hello?"]
    assert answer.text == "c answers"
    known = Scripted(model="k", script=AIMessage("known", id="fixed"))
    talk: Any = [hello, AIMessage("known", id="fixed"), HumanMessage("Again?")]
    assert ChatMixture([Propose([known])]).invoke(talk).text == "known"
    state = create_mixture([Propose([known])]).invoke({"messages": talk})
    assert [m.text for m in state["messages"]][1:] == ["known", "Again?", "known"]


def test_settings_of_the_call_mean_the_answering_call() -> None:
    """temperature, max_tokens, stop and others reach the answering model alone."""
    model = mixture(temperature=0.1, max_tokens=7, stop=["x"])
    model.invoke("Why?", stop=["y"], seed=3)
    assert model.client["a"].arguments == [{}]
    assert model.client["c"].arguments == [
        {"temperature": 0.1, "max_tokens": 7, "stop": ["y"], "seed": 3}
    ]
    chain = ChatMixture([Propose([RunnableLambda(lambda _: "x")])], temperature=0.1)
    with pytest.raises(InvalidMixtureError, match="temperature cannot be set for"):
        chain.invoke("Why?")


def test_whether_to_stream_is_no_setting_of_the_answering_model() -> None:
    """`stream=False` is core's word to this model, and goes no further."""
    model = mixture()
    assert model.invoke("Why?", stream=False).text == "c answers"
    assert model.client["c"].arguments == [{}]


def test_settings_of_the_call_come_before_all_others() -> None:
    """The call's replace the mixture's own, and these replace the step's."""
    last = Scripted(model="last")
    steps = [Propose([Scripted(model="a")]), Aggregate(last, temp=0.1, max_tokens=10)]
    ChatMixture(steps).invoke("Why?")
    model = ChatMixture(steps, temperature=0.5, max_tokens=20)
    model.invoke("Why?")
    model.invoke("Why?", temperature=0.9)
    assert last.arguments == [
        {"temperature": 0.1, "max_tokens": 10},
        {"temperature": 0.5, "max_tokens": 20},
        {"temperature": 0.9, "max_tokens": 20},
    ]


def test_settings_that_a_plain_function_cannot_take_are_an_error() -> None:
    """A function as client knows of a temperature and a limit, and nothing is lost."""

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        return f"{temp} {max_tokens}", 1, 1

    model = ChatMixture([Propose(["a"])], client=client)
    assert model.invoke("Why?", temperature=0.1, max_tokens=3).text == "0.1 3"
    with pytest.raises(
        NoResponsesError, match="seed cannot be passed to a client function"
    ):
        model.invoke("Why?", seed=3)


def test_a_plain_function_as_client_stops_where_it_is_told() -> None:
    """What a function client wrote behind a stop sequence is cut off."""

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        return "one STOP two", 1, 1

    model = ChatMixture([Propose(["a"])], client=client)
    assert model.invoke("Why?", stop=["STOP"]).text == "one "


def test_wrappers_and_nesting_work_as_for_any_model() -> None:
    """with_retry, with_fallbacks, a mixture as an agent of a mixture."""
    down = ChatMixture([Propose([Scripted(model="x", script=OSError("down"))])])
    assert down.with_fallbacks([mixture()]).invoke("Why?").text == "c answers"
    with pytest.raises(NoResponsesError):
        down.with_retry(wait_exponential_jitter=False, stop_after_attempt=2).invoke("?")
    outer = ChatMixture([Propose([mixture(), mixture()]), Aggregate(mixture())])
    message = outer.invoke("Why?")
    assert message.text == "c answers"
    usage = message.response_metadata["mixture"]["usage"]
    assert usage["total_tokens"] == 9 * 15
    assert "".join(c.text for c in outer.stream("Why?")) == "c answers"


class Wrapper(BaseChatModel):
    """A user's own model around another; it hands on the run that core gave it."""

    inner: BaseChatModel
    tells: bool

    @property
    def _llm_type(self) -> str:
        return "wrapper"

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self.inner._generate(
            messages, stop, run_manager if self.tells else None, **kwargs
        )

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return await self.inner._agenerate(
            messages, stop, run_manager if self.tells else None, **kwargs
        )


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("tells", [True, False])
async def test_a_users_wrapper_may_call_the_model_beneath_its_run(
    tells: bool, how: str
) -> None:
    """Handlers of the run are told of every call, where the wrapper hands it on."""
    counter = UsageMetadataCallbackHandler()
    model = Wrapper(inner=mixture(), tells=tells)
    answer = await called(model, how, "Why?", {"callbacks": [counter]})
    assert answer.text == "c answers"
    read = sum(usage["input_tokens"] for usage in counter.usage_metadata.values())
    assert read == (30 if tells else 0)


def test_more_than_twelve_layers_run_in_a_chain_and_in_a_batch() -> None:
    """A recursion limit of the caller's is not the graph's."""
    steps = [Propose(["a", "b"]), *[Synthesize(["a", "b"])] * 20, Aggregate("c")]
    model = ChatMixture(steps, client=models("a", "b", "c"))
    chain = RunnableLambda(lambda x: x) | model
    assert [m.text for m in chain.batch(["1", "2"])] == ["c answers"] * 2


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_an_empty_conversation_reaches_the_models_as_it_is(how: str) -> None:
    """Whether there is an answer to nothing is theirs to say, as of a plain model."""
    a, c = Scripted(model="a"), Scripted(model="c")
    alone = await called(ChatMixture([Propose([a])]), how, [], None)
    assert (alone.text, a.asked) == ("a answers", [[]])
    advised = await called(ChatMixture([Propose([a]), Aggregate(c)]), how, [], None)
    assert (advised.text, a.asked) == ("c answers", [[], []])
    system, responses = c.asked[0]
    assert (system.type, responses.type) == ("system", "human")
    assert "a answers" in responses.text


def test_a_degraded_mixture_as_an_agent_makes_a_degraded_answer() -> None:
    """What went wrong inside an agent that is a mixture is told outside, too."""
    inner = ChatMixture(
        [Propose(["a", "b"]), Take(1)],
        client=models("a", b=OSError("down")),
        name="inner",
    )
    for agent in (inner, inner.graph):
        outer = create_mixture([Propose([agent]), Aggregate(Streaming(model="c"))])
        about = outer.invoke({"messages": [("user", "Why?")]})["mixture"]
        assert about["status"] == "degraded"
        assert about["reasons"] == [
            "1_propose: inner gave a degraded answer: "
            "1_propose: b failed: OSError: down"
        ]


async def test_no_token_is_counted_twice() -> None:
    """The callback reports each model's true figure, once, however it is asked."""
    with serve() as stub:
        model = over(stub, "a", "b", "c")
        with get_usage_metadata_callback() as callback:
            model.invoke("Why?")
            counted = dict(callback.usage_metadata)
        assert {name: usage["total_tokens"] for name, usage in counted.items()} == {
            "a": 15,
            "b": 15,
            "c": 15,
        }
        with get_usage_metadata_callback() as callback:
            list(model.stream("Why?"))
            _ = [chunk async for chunk in model.astream("Why?")]
            await model.ainvoke("Why?")
            counted = dict(callback.usage_metadata)
        assert {name: usage["total_tokens"] for name, usage in counted.items()} == {
            "a": 45,
            "b": 45,
            "c": 45,
        }


def test_report_usage_puts_the_total_on_the_message() -> None:
    """Who asks for it gets the tokens of all calls as the message's usage."""
    total = {"input_tokens": 30, "output_tokens": 15, "total_tokens": 45}
    with serve() as stub:
        model = over(stub, "a", "b", "c", report_usage=True)
        assert model.invoke("Why?").usage_metadata == total
        *chunks, last = model.stream("Why?")
        assert last.usage_metadata == total
        assert not any(
            isinstance(c, AIMessageChunk) and c.usage_metadata for c in chunks
        )
