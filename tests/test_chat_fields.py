"""ChatMixture as an object: fields, copies, token counts, and the profile."""

import asyncio
import copy
import json
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, dumps, loads
from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    trim_messages,
)
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr, model_validator

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Map,
    Propose,
    Rank,
    Refine,
    Shuffle,
    Step,
    Synthesize,
    Take,
    Vote,
    create_mixture,
    moa_lite,
    robust_moa,
    run,
    self_moa,
    together_moa,
)
from tests.models import KEY, Scripted, Streaming, mixture, models


def test_it_pickles_and_copies_and_follows_assignment() -> None:
    """A used mixture travels, and a changed one is built anew."""
    model = mixture()
    model.invoke("Why?")
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin.invoke("Why?").text == "c answers"
    changed = model.model_copy(update={"steps": [Propose(["a"])]})
    assert changed.invoke("Why?").text == "a answers"
    assert model.invoke("Why?").text == "c answers"
    model.steps = [Propose(["b"])]
    assert model.invoke("Why?").text == "b answers"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "hot"},
        {"temperature": -3},
        {"max_tokens": 0},
        {"stop": 5},
        {"report_usage": "perhaps"},
        {"name": 5},
    ],
)
def test_a_wrong_value_of_a_field_names_the_field(fields: Any) -> None:
    """Every error of building is one of this package's, whichever field it is of."""
    (name,) = fields
    with pytest.raises(InvalidMixtureError, match=f"ChatMixture: {name} is "):
        mixture(**fields)


def test_a_subclass_may_have_rules_of_its_own() -> None:
    """What its validator says is in the error."""

    class House(ChatMixture):
        @model_validator(mode="after")
        def _rule(self) -> Any:
            raise ValueError("house rule: no")

    with pytest.raises(InvalidMixtureError, match="house rule: no"):
        House(steps=[Propose(["a"])])


TWO = Propose(["a", "b"])


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([TWO], "1_propose, the last step, can leave 2 responses"),
        ([TWO, Refine(["a"])], "2_refine, the last step, can leave 2 responses"),
        ([TWO, Shuffle()], "2_shuffle, the last step, can leave 2 responses"),
        ([TWO, Rank("a"), Map(str.strip)], "3_map, the last step, can leave 2"),
        ([TWO, Take(1), Synthesize(["a", "b"])], "3_synthesize, the last step"),
    ],
    ids=lambda value: value[:9] if isinstance(value, str) else "",
)
def test_a_pipeline_that_ends_with_several_responses_warns(
    steps: Sequence[Step], left: str
) -> None:
    """The line that makes it is named, once, and what to add; a copy is silent."""
    with pytest.warns(UserWarning, match=left) as caught:
        model = ChatMixture(steps, client=models("a", "b"))
    (warning,) = caught
    assert warning.filename == __file__
    assert "Aggregate(agent), Vote(agent), Rank(agent, 1) or Take(1)" in str(warning)
    pickled = pickle.loads(pickle.dumps(model))
    for twin in (model.model_copy(), copy.deepcopy(model), pickled):
        twin.invoke("Why?")
    create_mixture(steps, client=models("a", "b"))  # its state has all of them


@pytest.mark.parametrize(
    "steps",
    [
        [Propose(["a"])],
        [TWO, Aggregate("a")],
        [TWO, Take(1)],
        [TWO, Vote("a")],
        [TWO, Rank("a", 1)],
        [TWO, Rank("a")],
        together_moa(),
        moa_lite(),
        self_moa("a"),
        robust_moa(["a", "b"], "a"),
    ],
    ids=lambda steps: type(steps[-1]).__name__,
)
def test_a_pipeline_whose_answer_is_meant_does_not_warn(steps: Sequence[Step]) -> None:
    """One response is left, or a judge has put the best one first."""
    ChatMixture(steps)
    ChatMixture(steps, on_failure="keep", deadline=5)


def test_a_misspelt_keyword_names_the_nearest_field() -> None:
    """Nothing that was meant is silently ignored."""
    with pytest.raises(
        InvalidMixtureError, match=r"no field 'temprature'.*temperature"
    ):
        mixture(temprature=0.1)
    with pytest.raises(InvalidMixtureError, match=r"'checkpointer'.*create_mixture"):
        mixture(checkpointer=InMemorySaver())
    with pytest.raises(InvalidMixtureError, match="1_aggregate needs responses"):
        ChatMixture([Aggregate("openai:gpt-4o")])
    with pytest.warns(UserWarning, match="ChatMixture ignores max_retries"):
        mixture(max_retries=2)
    with pytest.raises(InvalidMixtureError, match="steps is 'gpt-4o'; allowed"):
        ChatMixture("gpt-4o")


def test_constructing_is_cheap_and_resolves_no_name() -> None:
    """Names become models when the mixture is first called."""
    made: list[str] = []

    def client(name: str) -> Scripted:
        made.append(name)
        return Scripted(model=name)

    model = ChatMixture([Propose(["a"]), Aggregate("b")], client=client)
    assert made == []
    model.invoke("Why?")
    model.invoke("Why?")
    assert made == ["a", "b"]


def test_tokens_are_counted_as_the_answering_model_counts_them() -> None:
    """trim_messages takes a mixture as its counter, as it takes any model."""

    class Counting(Streaming):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            return 10 * len(messages)

        def get_token_ids(self, text: str) -> list[int]:
            return [1, 2, 3]

    talk: list[BaseMessage] = [HumanMessage(str(n)) for n in range(9)]
    model = ChatMixture(
        [Propose([Streaming(model="a")]), Aggregate(Counting(model="c"))]
    )
    assert len(trim_messages(talk, max_tokens=35, token_counter=model)) == 3
    assert model.get_num_tokens("Why?") == 3
    chain = ChatMixture([Propose([RunnableLambda(lambda _: "x")])])
    assert chain.get_num_tokens_from_messages(talk) > 9


def test_the_profile_joins_those_of_its_models() -> None:
    """Tools as the answering model's, the smallest window, images if all take them."""
    big = Scripted(
        model="big",
        profile={
            "max_input_tokens": 9,
            "image_inputs": True,
            "tool_calling": True,
            "structured_output": True,
        },
    )
    small = Scripted(
        model="small", profile={"max_input_tokens": 5, "tool_calling": False}
    )
    assert ChatMixture([Propose([big, small]), Aggregate(big)]).profile == {
        "max_input_tokens": 5,
        "image_inputs": False,
        "tool_calling": True,
        "structured_output": True,
    }
    named = ChatMixture([Propose(["a"]), Aggregate("a")], client={"a": big})
    assert (named.profile or {})["structured_output"] is True
    assert ChatMixture([Propose(["openai:gpt-4o"])]).profile is None
    assert mixture().model_name == "langchain-mixture"


def test_a_fallback_that_may_answer_is_part_of_the_profile() -> None:
    """What it cannot do is not promised."""
    able = Scripted(model="a", profile={"tool_calling": True, "max_input_tokens": 9})
    small = Scripted(model="b", profile={"tool_calling": False, "max_input_tokens": 5})
    model = ChatMixture([Propose([able]), Aggregate(able, fallbacks=[small])])
    assert model.profile == {"tool_calling": False, "max_input_tokens": 5}


def test_a_changed_name_is_that_of_the_graphs_next_run() -> None:
    """It is what the graph is called in traces, used before or not."""
    names: list[str] = []

    class Ears(BaseCallbackHandler):
        def on_chain_start(self, *_: Any, name: str = "", **__: Any) -> None:
            names.append(name)

    model = mixture()
    for name in (None, "panel"):
        model.name = name
        model.invoke("Why?", {"callbacks": [Ears()]})
    assert names.count("mixture") == names.count("panel") == 1
    assert model.graph.name == "panel"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on_failure", "keep"),
        ("timeout", 7.0),
        ("deadline", 60.0),
        ("max_calls", 9),
        ("max_total_tokens", 9999),
    ],
)
def test_an_option_reaches_the_run_from_every_face(option: str, value: Any) -> None:
    """The model's own graph, the one that it shows, and `run` take it alike."""
    steps = [Propose([Scripted(model="a")])]
    model = ChatMixture(steps, **{option: value})
    (layer,) = model._compiled().layers
    shown = model.graph.builder.nodes["1_propose"].runnable._layer  # type: ignore[union-attr]
    for options in (layer.options, shown.options):
        assert getattr(options, option) == value
    wrong: Any = {option: -1}
    with pytest.raises(InvalidMixtureError, match=f"{option} is -1"):
        asyncio.run(run(steps, "Why?", **wrong))


def test_what_a_trace_tells_of_a_mixture_is_names_alone() -> None:
    """No header, query, password or bound key of a model inside is in it."""
    inside = ChatOpenAI(
        model="gpt-4o",
        api_key=KEY,
        base_url="http://user:hidden-1@127.0.0.1:1/v1",
        default_headers={"x-token": "hidden-2"},
        default_query={"token": "hidden-3"},
    ).bind(extra_headers={"authorization": "hidden-4"})
    steps = [Propose([inside, "gpt-4.1"]), Take(1)]
    model = ChatMixture(steps, client={"gpt-4.1": inside})
    told = f"{dumpd(model)} {model._identifying_params} {model!r} {model}"
    assert "hidden" not in told
    assert KEY not in told
    assert repr(model) == "ChatMixture(Propose(gpt-4o, gpt-4.1) → Take())"


def test_callbacks_are_told_the_mixtures_name_and_no_tokens_twice() -> None:
    """Handlers that read `llm_output` find a dict there, as of a provider's model."""
    told: list[Any] = []

    class Reader(BaseCallbackHandler):
        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            told.append(response.llm_output)

    mixture().invoke("Why?", {"callbacks": [Reader()]})
    assert told[-1] == {"model_name": "langchain-mixture"}


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_mixture_is_written_out_by_its_name_alone_and_never_read_back() -> None:
    """A serialized form is traced, and the models inside hold keys and headers."""
    key = "a-password-of-a-user"
    model = ChatOpenAI(
        model="a", api_key=SecretStr(key), default_headers={"x-token": key}
    )
    text = dumps(ChatMixture([Propose([model])]))
    assert key not in text
    assert json.loads(text)["type"] == "not_implemented"
    with pytest.raises(NotImplementedError, match=r"ChatMixture\(Propose\(a\)\)"):
        loads(text, allowed_objects="all")
