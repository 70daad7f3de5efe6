"""The twelve steps as values: what they accept, ask, and keep."""

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from langchain_mixture import (
    Aggregate,
    Dropout,
    Filter,
    InvalidMixtureError,
    Map,
    Propose,
    Rank,
    Refine,
    Reply,
    Response,
    Sample,
    Shuffle,
    Step,
    Synthesize,
    Take,
    Vote,
    moa_lite,
    robust_moa,
    self_moa,
    together_moa,
)
from langchain_mixture.threads import wait_for
from tests.models import Scripted

CONVERSATION: list[BaseMessage] = [SystemMessage("Be kind."), HumanMessage("Why {x}?")]


def response(number: int, text: str = "") -> Response:
    """Make a response."""
    return {
        "id": f"1_propose/{number}",
        "text": text or f"answer {number}",
        "agent": f"m{number}",
        "step": "1_propose",
        "parents": [],
        "tool_calls": [],
    }


def reply(number: int, text: str = "", error: str | None = None) -> Reply:
    """Make a reply, failed where it has an error."""
    made: Any = {
        **response(number, text),
        "id": f"2_x/{number}",
        "index": number,
        "attempt": 0,
        "model": f"m{number}",
        "error": error,
        "started": 0.0,
        "time": 0.0,
        "in_tokens": 0,
        "out_tokens": 0,
        "message": None,
        "estimated_tokens": 0,
        "reasons": [],
        "cut_off": None,
        "outcome": "failed" if error else "answered",
    }
    return cast("Reply", made)


FOUR = [response(number) for number in range(4)]


def kept(step: Step, replies: Sequence[Reply] = ()) -> list[str]:
    """Give the texts that a step keeps of four responses."""
    chosen = step.keep(FOUR, replies)
    assert isinstance(chosen, list)
    return [response["text"] for response in chosen]


# -- Construction --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: Propose("gpt-4o"), "Propose: agents is 'gpt-4o'"),
        (lambda: Propose([]), "Propose: agents is []"),
        (lambda: Propose(["a", 3]), r"Propose: agents is ['a', 3]"),  # type: ignore[list-item]
        (lambda: Propose([""]), "Propose: agents is ['']"),
        (lambda: Synthesize("a"), "Synthesize: agents is 'a'"),
        (lambda: Refine([]), "Refine: agents is []"),
        (lambda: Aggregate(["a"]), "Aggregate: agent is ['a']"),  # type: ignore[arg-type]
        (lambda: Aggregate("a", fallbacks="b"), "Aggregate: fallbacks is 'b'"),
        (lambda: Vote(None), "Vote: agent is None"),  # type: ignore[arg-type]
        (lambda: Rank("a", 0), "Rank: n is 0"),
        (lambda: Rank("a", 1.5), "Rank: n is 1.5"),  # type: ignore[arg-type]
        (lambda: Take(0), "Take: n is 0"),
        (lambda: Take(True), "Take: n is True"),
        (lambda: Sample(-1), "Sample: n is -1"),
        (lambda: Dropout(1.5), "Dropout: rate is 1.5"),
        (lambda: Dropout("x"), "Dropout: rate is 'x'"),  # type: ignore[arg-type]
        (lambda: Shuffle(seed="x"), "Shuffle: seed is 'x'"),  # type: ignore[arg-type]
        (lambda: Filter("x"), "Filter: fn is 'x'"),  # type: ignore[arg-type]
        (lambda: Map(None), "Map: fn is None"),  # type: ignore[arg-type]
        (lambda: Propose(["a"], -1), "Propose: temp is -1"),
        (lambda: Propose(["a"], 0.7, 0), "Propose: max_tokens is 0"),
        (lambda: Propose(["a"], timeout=0), "Propose: timeout is 0"),
        (lambda: Propose(["a"], timeout=float("inf")), "Propose: timeout is inf"),
        (lambda: Aggregate("a", ""), "Aggregate: prompt is ''"),
        (lambda: Aggregate("a", 0.7), "Aggregate: prompt is 0.7"),  # type: ignore[arg-type]
        (
            lambda: Aggregate("a", ChatPromptTemplate([("user", "{question}")])),
            "Aggregate: prompt has the variable 'question'; allowed: analysis, "
            "messages, query, responses",
        ),
        (
            lambda: Aggregate("a", ChatPromptTemplate([("user", "{query}")])),
            "Aggregate: prompt shows the model no response; allowed: a template with "
            "the variable responses",
        ),
        (
            lambda: Refine(["a"], ChatPromptTemplate([("user", "{query}")])),
            "with the variable responses or text",
        ),
        (
            lambda: Propose(
                ["a"], prompt=ChatPromptTemplate([("user", "{responses}")])
            ),
            "Propose: prompt has the variable 'responses'",
        ),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it_and_what_is_allowed(
    make: Callable[[], Step], culprit: str
) -> None:
    """A wrong argument fails where it is written, with the culprit and the value."""
    with pytest.raises(InvalidMixtureError, match="allowed") as raised:
        make()
    assert culprit in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_the_positional_fields_are_those_of_mixture_llm_in_their_order() -> None:
    """A pipeline written for mixture-llm means the same here."""
    assert Propose(["a"], 0.9, 4096) == Propose(["a"], temp=0.9, max_tokens=4096)
    for step in (Synthesize(["a"], "p", 0.1, 5), Refine(["a"], "p", 0.1, 5)):
        assert (step.prompt, step.temp, step.max_tokens) == ("p", 0.1, 5)
    for fuse in (Aggregate("a", "p", 0.1, 5), Vote("a", "p", 0.1, 5)):
        assert (fuse.prompt, fuse.temp, fuse.max_tokens) == ("p", 0.1, 5)
    rank = Rank("a", 2, "p", 0.1, 5)
    assert (rank.n, rank.prompt, rank.temp, rank.max_tokens) == (2, "p", 0.1, 5)


def test_steps_are_values() -> None:
    """Steps are compared by class and fields, are true, cannot change, and pickle."""
    two: list[Step] = [Take(2), Sample(2), Aggregate("a", "p"), Vote("a", "p")]
    assert two[0] == Take(2)
    assert two[0] != two[1]
    assert two[2] != two[3]
    assert bool(Shuffle())
    agents = ["a", "b"]
    step = Propose(agents)
    agents.append("c")
    assert list(step.agents) == ["a", "b"]
    with pytest.raises(AttributeError):
        step.temp = 1.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(step)) == step
    assert hash(step) == hash(Propose(["a", "b"]))


@pytest.mark.parametrize(
    ("step", "given", "said"),
    [
        (Propose, {"temperature": 1}, "has no argument 'temperature'; nearest: temp."),
        (
            Propose,
            {"models": ["a"]},
            "Propose has no argument 'models'; nearest: agents.",
        ),
        (
            Aggregate,
            {"model": "a"},
            "Aggregate has no argument 'model'; nearest: agent.",
        ),
        (Aggregate, {"agent": "a", "fallback": ["b"]}, "nearest: fallbacks."),
        (Synthesize, {"promt": "Fuse."}, "nearest: prompt."),
        (Refine, {"max_token": 5}, "nearest: max_tokens."),
        (Vote, {"judge": "a"}, "nearest: agent."),
        (Rank, {"top": 3}, "Rank has no argument 'top'; nearest: n."),
        (Take, {"k": 3}, "nearest: n."),
        (Sample, {"n": 3, "sed": 1}, "nearest: seed."),
        (Dropout, {"rat": 0.1}, "nearest: rate."),
        (Shuffle, {"zzz": 1}, "Shuffle has no argument 'zzz'; allowed: unless, seed."),
        (Filter, {"function": len}, "nearest: fn."),
        (Map, {"func": len}, "nearest: fn."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_misspelt_or_near_keyword_names_the_nearest(
    step: Callable[..., Step], given: dict[str, Any], said: str
) -> None:
    """Of every step, as of a ChatMixture and of create_mixture."""
    with pytest.raises(InvalidMixtureError) as raised:
        step(**given)
    assert said in str(raised.value)


def test_a_subclass_with_keywords_of_its_own_keeps_them() -> None:
    """Only what the step's own constructor does not know is refused."""

    class Panel(Propose):
        def __init__(self, *, size: int, **others: Any) -> None:
            super().__init__(["a"] * size, **others)

    @dataclass(frozen=True)
    class Titled(Propose):
        title: str = ""

    assert len(Panel(size=3, temp=0.5).agents) == 3
    assert Titled(["a"], title="x").title == "x"
    with pytest.raises(InvalidMixtureError, match="Titled has no argument 'tilte'"):
        Titled(["a"], tilte="x")  # type: ignore[call-arg]  # what it is about
    assert str(signature(Propose)).startswith("(agents: ")
    assert replace(Propose(["a"]), temp=1.0) == Propose(["a"], 1.0)
    assert copy(Rank("a", 2)) == Rank("a", 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: self_moa(["m"]), "self_moa: model is ['m']; allowed: a model name"),  # type: ignore[arg-type]
        (lambda: self_moa("m", "6"), "self_moa: samples is '6'; allowed: a whole"),  # type: ignore[arg-type]
        (lambda: self_moa("m", aggregator=["x"]), "self_moa: aggregator is ['x']"),  # type: ignore[arg-type]
        (lambda: together_moa("gpt"), "together_moa: proposers is 'gpt'"),
        (lambda: together_moa(layers=1), "together_moa: layers is 1; allowed: a whole"),
        (lambda: moa_lite([]), "moa_lite: proposers is []"),
        (lambda: moa_lite(["a"], 3), "moa_lite: aggregator is 3"),  # type: ignore[arg-type]
        (lambda: robust_moa(["a"], ["b"]), "robust_moa: aggregator is ['b']"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_preset_names_its_own_argument(make: Callable[[], Any], said: str) -> None:
    """Not the step's, which its caller has never seen."""
    with pytest.raises(InvalidMixtureError) as raised:
        make()
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Aggregate("a", "Fuse {reponses}"),
            "Aggregate: {reponses} in the prompt is not replaced; nearest: {responses",
        ),
        (lambda: Synthesize(["a"], "{response}"), "nearest: {responses}."),
        (lambda: Vote("a", "For {question}"), "nearest: {query}."),
        (lambda: Rank("a", 2, "{ responses }"), "nearest: {responses}."),
        (lambda: Refine(["a"], "{Text}"), "nearest: {text}."),
        (lambda: Refine(["a"], "{texts} {query}"), "nearest: {text}."),
        (lambda: Aggregate("a", "{messages}"), "nearest: {messages} in a ChatPrompt"),
        (lambda: Propose(["a"], prompt="{query}"), "{query} in a ChatPromptTemplate."),
        (lambda: Propose(["a"], prompt="{question}"), "{query} in a ChatPromptTe"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_typo_in_a_string_prompt_warns_with_the_nearest_name(
    make: Callable[[], Step], said: str
) -> None:
    """The warning points at the line that makes the step."""
    with pytest.warns(UserWarning, match="in the prompt is not replaced") as warned:
        make()
    assert said in str(warned[0].message)
    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    "prompt",
    [
        "{responses}",
        "{query}: {responses}",
        '{"json": {query}}',
        "{x} {}",
        "{n} {text}",
    ],
)
def test_any_other_brace_in_a_prompt_is_data_and_warns_of_nothing(prompt: str) -> None:
    """Code and JSON in a prompt are as good as any text."""
    Aggregate("a", prompt)
    Propose(["a"], prompt="You are {poet}, and write {json: 1}.")


CHAT = ChatPromptTemplate([("user", "{responses}")])


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (Propose(["gpt-4o", "gpt-4.1"]), "Propose(gpt-4o, gpt-4.1)"),
        (Propose(["gpt-4o"] * 6, temp=0.7), "Propose(6 x gpt-4o, temp=0.7)"),
        (Aggregate(Scripted(model="m").with_retry()), "Aggregate(m)"),
        (
            Aggregate("a", fallbacks=["b", Scripted(model="m")]),
            "Aggregate(a, fallbacks=[b, m])",
        ),
        (Vote("a"), "Vote(a)"),
        (Synthesize(["a"], "Fuse them."), "Synthesize(a, prompt='Fuse them.')"),
        (Refine(["a"], "x" * 100), f"Refine(a, prompt='{'x' * 40}\u2026')"),
        (Aggregate("a", CHAT), "Aggregate(a, prompt=a ChatPromptTemplate)"),
        (Rank("a", 2), "Rank(a, n=2)"),
        (Rank("a"), "Rank(a)"),
        (Propose(["a"], timeout=None, quorum=1), "Propose(a, timeout=None, quorum=1)"),
        (Take(2), "Take(n=2)"),
        (Dropout(0.2), "Dropout(rate=0.2)"),
        (Shuffle(), "Shuffle()"),
        (Map(str.strip), "Map(fn=strip)"),
        (Filter(lambda text: text), "Filter(fn=<lambda>)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_step_is_shown_in_one_short_line(step: Step, shown: str) -> None:
    """Agents by their names, what differs from the defaults, and no address."""
    assert repr(step) == shown


def test_a_step_shows_no_key() -> None:
    """Neither a model's, nor one that was given in the place of a name."""
    key: Any = "sk-abcdef1234567890"
    model = ChatOpenAI(model="gpt-4o", api_key=key, base_url="http://me:pass@host")
    steps: list[Step] = [Propose([model, key]), Aggregate(model, f"Say {key}\nnow")]
    assert repr(steps[0]) == "Propose(gpt-4o, [redacted])"
    assert key not in repr(steps)
    assert "pass" not in repr(steps)
    assert "\n" not in repr(steps)


# -- What they ask -------------------------------------------------------------------


def test_propose_asks_the_conversation_as_it_is() -> None:
    """Each agent of Propose is asked the same untouched messages."""
    calls = Propose(["a", "b"]).calls(CONVERSATION, FOUR)
    assert [call["messages"] for call in calls] == [CONVERSATION] * 2


def test_a_prompt_on_propose_is_a_persona() -> None:
    """Propose's prompt joins the system message."""
    (call,) = Propose(["a"], prompt="You are a {poet}.").calls(CONVERSATION, [])
    assert call["messages"][0].text == "Be kind.\n\nYou are a {poet}."


def test_a_template_on_propose_is_all_that_the_model_is_asked() -> None:
    """It may hold the conversation, or the last question alone."""
    template = ChatPromptTemplate([("system", "Briefly."), ("user", "Tell: {query}")])
    (call,) = Propose(["a"], prompt=template).calls(CONVERSATION, [])
    question = CONVERSATION[-1].text
    texts = [message.text for message in call["messages"]]
    assert texts == ["Briefly.", f"Tell: {question}"]


@pytest.mark.parametrize("shown", [[], None, "Why?"])
def test_a_view_must_show_messages(shown: Any) -> None:
    """The error has what the function returned."""
    with pytest.raises(TypeError, match=r"view returned .*; allowed: a list"):
        Propose(["a"], view=lambda _: shown).calls(CONVERSATION, [])


@pytest.mark.parametrize("step", [Synthesize(["a"]), Aggregate("a"), Vote("a")])
def test_fusing_steps_join_the_numbered_responses_to_the_users_message(
    step: Step,
) -> None:
    """The instruction is constant and stands in the system message."""
    (call,) = step.calls(CONVERSATION, FOUR)
    system, human = call["messages"]
    assert system.text.startswith("Be kind.\n\nOther models have already responded")
    assert "answer" not in system.text.replace("answer on", "").replace("answer ", "")
    assert human.text.startswith(f"{CONVERSATION[1].text}\n\nThere are 4 responses.")
    assert human.text.endswith("<response 4>\nanswer 3\n</response 4>")
    assert call["parents"] == [response["id"] for response in FOUR]


def test_all_agents_of_a_layer_are_asked_the_same_bytes() -> None:
    """The agents of one Synthesize share their messages, for prompt caches."""
    first, second = Synthesize(["a", "b"]).calls(CONVERSATION, FOUR)
    assert first["messages"] is second["messages"]


def test_refine_shows_each_response_to_agent_i_mod_n() -> None:
    """Response i is improved by agent i mod n, and shown no other."""
    step = Refine(["a", "b"])
    assert step.bounds(3) == (["a", "b", "a"], 3)
    calls = step.calls(CONVERSATION, FOUR)
    assert [call["parents"] for call in calls] == [[r["id"]] for r in FOUR]
    assert "answer 2" in calls[2]["messages"][-1].text
    assert "answer 1" not in calls[2]["messages"][-1].text


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            Refine(["a"], "Improve: {text}\nFor: {query}. {other}"),
            "Improve: answer 0\nFor: Why {x}?. {other}",
        ),
        (Rank("a", 9, "{n} of: {query}\n{responses}"), "4 of: Why {x}?\nThere are 4"),
        (
            Refine(["a"], "Improve: {responses}"),
            "Improve: The response stands between its marks",
        ),
        (Aggregate("a", "For {query}: {responses}"), "For Why {x}?: There are 4"),
        (
            Vote("a", "{query} {text} {n}", responses_in="system"),
            "Why {x}? {text} {n}\n\nThere are 4",
        ),
        (
            Synthesize(["a"], "Fuse.", responses_in="system"),
            "Fuse.\n\nThere are 4",
        ),
    ],
)
def test_placeholders_of_a_prompt_are_replaced_as_plain_text(
    step: Step, said: str
) -> None:
    """The query and the responses stand where the prompt wants them, and once."""
    text = step.calls(CONVERSATION, FOUR)[0]["messages"][0].text
    assert text.removeprefix("Be kind.\n\n").startswith(said)
    assert text.count("answer 0") == 1
    call = step.calls(CONVERSATION, FOUR)[0]
    assert call["messages"][0].text.removeprefix("Be kind.\n\n").startswith(said)


def test_a_template_is_all_that_the_model_is_asked() -> None:
    """A ChatPromptTemplate replaces the whole prompt, with every variable at hand."""
    template = ChatPromptTemplate(
        [("system", "{n} of {responses}"), ("placeholder", "{messages}"), "{query}!"]
    )
    messages = Rank("a", 2, template).calls(CONVERSATION, FOUR)[0]["messages"]
    assert [type(message).__name__ for message in messages] == [
        "SystemMessage",
        "SystemMessage",
        "HumanMessage",
        "HumanMessage",
    ]
    assert messages[0].text.startswith("2 of There are 4 responses")
    assert messages[-1].text == "Why {x}?!"
    refine = Refine(["a"], ChatPromptTemplate([("user", "{text}")]))
    assert refine.calls(CONVERSATION, FOUR)[1]["messages"][0].text == "answer 1"


# -- What they keep ------------------------------------------------------------------


def test_new_answers_replace_the_old_ones_and_failures_are_left_out() -> None:
    """Propose and Synthesize keep what was answered, in the order of the agents."""
    replies = [reply(0, "x"), reply(1, error="TimeoutError"), reply(2, "z")]
    assert kept(Propose(["a"]), replies) == ["x", "z"]
    assert kept(Synthesize(["a"]), replies) == ["x", "z"]


def test_refine_keeps_the_original_where_its_call_failed() -> None:
    """Refine never loses a response, nor their order."""
    replies = [reply(0, "x"), reply(1, error="boom"), reply(2, "z"), reply(3, "w")]
    assert kept(Refine(["a"]), replies) == ["x", "answer 1", "z", "w"]


@pytest.mark.parametrize(
    ("judgement", "order"),
    [
        (reply(0, "Ranking: 3, 1"), ["answer 2", "answer 0", "answer 1"]),
        (reply(0, "2"), ["answer 1", "answer 0", "answer 2"]),
        (reply(0, "4, 4, 7, 0, 3, 2, 1"), ["answer 3", "answer 2", "answer 1"]),
        (reply(0, error="TimeoutError"), ["answer 0", "answer 1", "answer 2"]),
    ],
)
def test_rank_keeps_the_n_best_topped_up_in_input_order(
    judgement: Reply, order: list[str]
) -> None:
    """Rank keeps n, best first, and falls back to the order in which they came."""
    assert kept(Rank("a", 3), [judgement]) == order


def test_a_judgement_that_names_nothing_is_a_failed_call() -> None:
    """Rank tells an unreadable judgement from a readable one before keeping."""
    (call,) = Rank("a").calls(CONVERSATION, FOUR)
    call["check"]("3, 1")
    with pytest.raises(ValueError, match="names none of the 4 responses: 'All good'"):
        call["check"]("All good")


def test_shuffle_is_a_seeded_permutation() -> None:
    """Shuffle keeps all responses; a seed repeats the order, none varies it."""
    assert sorted(kept(Shuffle(seed=7))) == [r["text"] for r in FOUR]
    assert kept(Shuffle(seed=7)) == kept(Shuffle(seed=7))
    assert len({tuple(kept(Shuffle())) for _ in range(100)}) > 1


def test_sample_draws_n_without_repeats() -> None:
    """Sample keeps n distinct responses, all of them where there are no more."""
    assert len(set(kept(Sample(3, seed=1)))) == 3
    assert sorted(kept(Sample(9))) == [r["text"] for r in FOUR]


@pytest.mark.parametrize(("rate", "left"), [(0.0, 4), (1.0, 1)])
def test_dropout_drops_at_its_rate_and_leaves_one(rate: float, left: int) -> None:
    """Dropout drops none at rate 0 and all but one at rate 1."""
    assert len(kept(Dropout(rate))) == left


def test_dropout_drops_each_response_with_its_probability() -> None:
    """Over many seeds, about the given share is dropped."""
    counts = Counter(len(kept(Dropout(0.25, seed=seed))) for seed in range(400))
    assert 2.8 < sum(n * c for n, c in counts.items()) / 400 < 3.2


def test_take_keeps_the_first() -> None:
    """Take keeps the first n, and all where there are fewer."""
    assert kept(Take(2)) == ["answer 0", "answer 1"]
    assert len(kept(Take(9))) == 4


async def _is_odd(text: str) -> bool:
    return text[-1] in "13"


async def _upper(text: str) -> str:
    return text.upper()


@pytest.mark.parametrize(
    ("step", "texts"),
    [
        (Filter(lambda text: text > "answer 1"), ["answer 2", "answer 3"]),
        (Filter(_is_odd), ["answer 1", "answer 3"]),
        (Map(str.upper), ["ANSWER 0", "ANSWER 1", "ANSWER 2", "ANSWER 3"]),
        (Map(_upper), ["ANSWER 0", "ANSWER 1", "ANSWER 2", "ANSWER 3"]),
    ],
)
def test_filter_and_map_take_sync_and_async_functions(
    step: Step, texts: list[str]
) -> None:
    """Filter keeps what its function accepts, Map changes texts; both sync or async."""
    chosen = step.keep(FOUR, [])
    chosen = chosen if isinstance(chosen, list) else wait_for(chosen)
    assert [response["text"] for response in chosen] == texts


def test_transforms_keep_who_wrote_what() -> None:
    """A response keeps its id, agent and step on its way."""
    for step in (Shuffle(), Take(4), Sample(4), Filter(bool), Rank("a", 4), Map(str)):
        chosen = step.keep(FOUR, [])
        assert isinstance(chosen, list)
        assert sorted(r["id"] for r in chosen) == [r["id"] for r in FOUR]


@pytest.mark.parametrize(
    ("step", "answers"),
    [
        (Propose(["a"]), True),
        (Synthesize(["a"]), True),
        (Aggregate("a"), True),
        (Refine(["a"]), True),
        (Vote("a"), True),
        (Rank("a"), False),
        (Shuffle(), False),
        (Take(1), False),
    ],
)
def test_steps_that_write_for_the_user_may_answer(step: Step, answers: bool) -> None:
    """Every step that writes text may be the answering one; a judge may not."""
    assert step.answers is answers


def test_a_prompt_with_braces_from_the_user_is_data() -> None:
    """A conversation full of braces and templates passes through every step."""
    talk: list[BaseMessage] = [
        SystemMessage('{"a": {0}}'),
        HumanMessage("{responses} %s {{"),
        AIMessage("{text}"),
        HumanMessage("{n}"),
    ]
    steps: list[Any] = [
        Propose(["a"]),
        Synthesize(["a"]),
        Refine(["a"]),
        Rank("a"),
        Vote("a"),
    ]
    for step in steps:
        messages = step.calls(talk, FOUR)[0]["messages"]
        assert messages[0].text.startswith('{"a": {0}}')
        assert messages[1:-1] == talk[1:-1]
        assert messages[-1].text.startswith("{n}")
