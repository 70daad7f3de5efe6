"""The report of a recording: what it shows, that it is safe, and how it opens."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from langchain_mixture import (
    Aggregate,
    Analyze,
    ChatMixture,
    Kept,
    Majority,
    Propose,
    Rank,
    Refine,
    Step,
    StepFailedError,
    Synthesize,
    Take,
    create_mixture,
    letter,
)
from langchain_mixture.evaluation import compare
from langchain_mixture.seeing import Recording
from tests.browser import PROGRAM, Browser, browser
from tests.models import Scripted, Tooled, add, ask, models

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></pre></details></script>"
    "<!-- {{ 7 * 7 }} {% raw %} https://example.com ' \" & \u2028"
)


def recorded(
    steps: Any, client: Any, question: Any = "Why?", **fields: Any
) -> Recording:
    """Record one run of a graph, which may fail."""
    recording = Recording()
    graph = create_mixture(steps, client=client, **fields)
    with suppress(StepFailedError):
        graph.invoke(ask(question), {"callbacks": [recording]})
    return recording


def small() -> Recording:
    """Record three answers, two of them alike, and their fusion."""
    client = models(
        a="An ion is a charged atom.",
        b="An ion is a charged atom!",
        c="Think of a bank account.",
        judge="An ion is an atom with a charge.",
    )
    return recorded([Propose(["a", "b", "c"]), Aggregate("judge")], client)


def degraded() -> Recording:
    """Record a failure, a fallback, a skipped step, and a response that is dropped."""
    client = models("a", "c", bad=ValueError("429, too fast"), judge="2, 1")
    steps = [
        Propose(["a", "bad", "c"]),
        Rank("judge", 1),
        Aggregate("bad", fallbacks=["c"]),
        Refine(["a"], unless=lambda _: True),
    ]
    return recorded(steps, client)


def hostile() -> Recording:
    """Record names and texts that would break a careless page, one of 1 MB."""
    client = models(
        **{EVIL: EVIL}, rtl="שלום עולם " * 50, big="x" * 500_000 + " y" * 250_000
    )
    steps = [Propose([EVIL, "rtl", "big"]), Aggregate(EVIL)]
    return recorded(steps, client, EVIL + "word" * 200, name=EVIL)


def wide() -> Recording:
    """Record 64 proposers in three layers, each with 2 kB."""
    names = [f"m{number}" for number in range(64)]
    scripts = {
        name: " ".join(f"{n}{(n * k) % 97}" for k in range(400))
        for n, name in enumerate(names)
    }
    steps = [Propose(names), Synthesize(names), Synthesize(names), Aggregate("m0")]
    return recorded(steps, models(**scripts))


def agents() -> Recording:
    """Record two turns of an agent, one of them with a mixture inside a mixture."""
    recording = Recording()
    inner = ChatMixture([Propose(["a"])], client=models("a"), name="inner")
    client: Any = {"a": inner, "b": Tooled(model="b")}
    model = ChatMixture([Propose(["a"]), Aggregate("b")], client=client)
    agent: Any = create_agent(model, [add], name="calculator")
    for question in ("What is 1 + 2?", "And again?"):
        agent.invoke(ask(question), {"callbacks": [recording]})
    return recording


def page_of(recording: Recording, folder: Path) -> str:
    """Give the page that a recording writes."""
    recording.html(folder / "page.html")
    return (folder / "page.html").read_text()


def shown(page: str) -> str:
    """Give a page without its data, its code and its style."""
    return re.sub(r"(?s)<(script|style)[^>]*>.*?</\1>", "", page)


# -- What it shows ---------------------------------------------------------------------


def test_the_head_says_how_the_run_went(tmp_path: Path) -> None:
    """Its question, its status, its calls, its time, its critical path, its tokens."""
    text = shown(page_of(small(), tmp_path))
    assert '<h1 dir="auto">Why?</h1>' in text
    assert ">complete</span>" in text
    assert "4 of 4 calls answered" in text
    assert re.search(r"\d+ ms, critical path [abc] → judge", text)
    assert "60 tokens" in text


def test_every_card_says_what_became_of_the_call(tmp_path: Path) -> None:
    """Kept, dropped, judged, failed and why, a fallback, the answer; skipped steps."""
    text = shown(page_of(degraded(), tmp_path))
    states = re.findall(r'-ink">([^<]+)</span><span class="fixed">', text)
    assert states == [
        "dropped by 2_rank",
        "failed",
        "kept",
        "judged",
        "failed",
        "the answer",
    ]
    assert "ValueError: 429, too fast" in text
    assert "c (fallback)" in text
    assert re.search(r"4_refine</h3><p>skipped: ", text)
    assert ">degraded</span>" in text


def test_a_card_links_to_what_its_model_was_shown(tmp_path: Path) -> None:
    """Every link leads to a place on the page."""
    for recording in (small(), degraded(), agents()):
        text = shown(page_of(recording, tmp_path))
        links = set(re.findall(r'href="#([^"]+)"', text))
        places = re.findall(r' id="([^"]+)"', text)
        assert links
        assert links <= set(places)
        assert len(places) == len(set(places))


def test_without_a_judgement_the_texts_are_compared(tmp_path: Path) -> None:
    """In a picture, and in words: who is alike, and who stands apart."""
    text = shown(page_of(small(), tmp_path))
    assert re.search(r"a and b are most alike \(0\.\d\d\)\.", text)
    assert re.search(r"c stands apart \(0\.\d\d on average\)\.", text)


def test_votes_are_drawn_where_there_are_votes(tmp_path: Path) -> None:
    """With those who were outvoted; who agreed is not said to be dropped."""
    client = models(a="(B)", b="So (B)", c="(C)")
    recording = recorded([Propose(["a", "b", "c"]), Majority(letter)], client)
    text = shown(page_of(recording, tmp_path))
    assert "2_majority: 2 of 3 votes for B" in text
    assert "Another answer: c." in text
    states = re.findall(r'-ink">([^<]+)</span><span class="fixed">', text)
    assert states == ["the answer", "voted for the answer", "outvoted"]


def test_points_of_judges_are_drawn(tmp_path: Path) -> None:
    """With the name of the best."""
    client = models("a", "b", j="1, 2", k="1, 2")
    recording = recorded([Propose(["a", "b"]), Rank(["j", "k"], 1)], client)
    assert "2_rank: most points for a" in shown(page_of(recording, tmp_path))


def test_an_analysis_is_shown_where_there_is_one(tmp_path: Path) -> None:
    """It says more than a picture of letters."""
    client = models("a", "b", "c", judge="They differ about salt.")
    steps = [Propose(["a", "b"]), Analyze("judge"), Aggregate("c")]
    text = shown(page_of(recorded(steps, client), tmp_path))
    assert "They differ about salt." in text.partition("Agreement")[2][:300]
    assert "most alike" not in text


def test_in_an_agent_each_run_has_its_turn_and_its_place(tmp_path: Path) -> None:
    """On one page, with links from a call to the mixture inside it and back."""
    text = shown(page_of(agents(), tmp_path))
    assert "2 turns" in text
    assert text.count("turn 1 of calculator") == 3  # one of them is inside
    assert "starts from 1 response" in text
    assert "Ran a mixture: " in text
    assert "1_propose/0 of run 1" in text


def test_a_run_that_failed_or_has_not_ended_is_shown(tmp_path: Path) -> None:
    """With its error, and the steps that were not reached."""
    failed = recorded([Propose(["bad"]), Take(1)], models(bad=ValueError("no")))
    text = shown(page_of(failed, tmp_path))
    assert ">failed</span>" in text
    assert "bad failed: ValueError: no" in text
    assert "not reached" in text
    assert "No run was recorded" in page_of(Recording(), tmp_path)


def test_tokens_and_dollars_are_shown_of_calls_and_of_the_run(tmp_path: Path) -> None:
    """Estimated ones are said to be; the prices of a run serve, too."""
    price = {"input": 1.0, "output": 2.0}
    silent: Any = RunnableLambda(lambda _: "So.", name="silent")
    steps = [Propose(["a", silent]), Aggregate("a")]
    recording = Recording(prices={"a": price, "silent": price})
    graph = create_mixture(steps, client=models("a"))
    for _ in range(2):
        graph.invoke(ask(), {"callbacks": [recording]})
    text = shown(page_of(recording, tmp_path))
    assert "10 → 5 tokens · $0.00002" in text
    assert re.search(r"about \d+ tokens · \$0\.0000\d", text)
    total = re.findall(r"2 runs</span><span>6 calls</span>.*?(\$[\d.]+)", text)[0]
    costs = [call["cost"] or 0 for run in recording.runs for call in run["calls"]]
    assert float(total[1:]) == pytest.approx(sum(costs), abs=1e-6)
    priced = recorded(steps, models("a"), prices={"a": price, "silent": price})
    head = shown(page_of(priced, tmp_path)).partition("Answer")[0]
    assert "$0.00004" in head


def test_blocks_tool_calls_notes_and_endings_are_shown(tmp_path: Path) -> None:
    """Of an answer in blocks, one cut off, one that a step of the user's own noted."""
    call: Any = {"name": "add", "args": {"a": 1}, "id": "1"}
    client = models(
        a=AIMessage(
            [
                {"type": "thinking", "thinking": "Hm."},
                "So.",
                {"type": "text", "text": "And."},
            ]
        ),
        b=AIMessage("Half", response_metadata={"finish_reason": "length"}),
        c=AIMessage("", tool_calls=[call]),
    )
    steps = [Propose(["a", "b", "c"]), Noted(), Take(1)]
    text = shown(page_of(recorded(steps, client, max_calls=9), tmp_path))
    assert "So.\nAnd." in text
    assert "Cut off at its token limit" in text
    assert "add({&#34;a&#34;: 1})" in text
    assert "as it came" in text
    assert "Kept: <a" in text


@dataclass(frozen=True)
class Noted(Step):
    """Keeps all, with a note."""

    said: Any = "as it came"

    def keep(self, responses: Any, replies: Any) -> Any:
        return Kept(responses, note=self.said)


def test_agents_of_one_name_are_numbered(tmp_path: Path) -> None:
    """So that several samples of one model can be told apart."""
    text = shown(page_of(recorded([Propose(["a", "a"])], models("a")), tmp_path))
    assert "a #1" in text
    assert "a #2" in text


def test_a_step_that_was_not_asked_says_why(tmp_path: Path) -> None:
    """A limit that was reached is the reason, and there is no time of its own."""
    steps = [Propose(["a", "b"]), Aggregate("c")]
    text = shown(page_of(recorded(steps, models("a", "b", "c"), max_calls=2), tmp_path))
    assert ">not asked</span>" in text
    assert "max_calls" in text


def test_an_answer_from_a_cache_is_said_to_be_one(tmp_path: Path) -> None:
    """It cost nothing in this run."""
    client = {"a": Scripted(model="a", cache=InMemoryCache())}
    texts = [
        shown(page_of(recorded([Propose(["a"])], client), tmp_path)) for _ in range(2)
    ]
    assert ["cached" in text for text in texts] == [False, True]


def test_a_note_that_is_no_text_is_shown_as_it_is(tmp_path: Path) -> None:
    """As JSON; votes and points are drawn instead."""
    steps = [Propose(["a"]), Noted({"kept": ["all", 1]})]
    text = shown(page_of(recorded(steps, models("a")), tmp_path))
    assert re.search(r"kept&#34;: \[\s*&#34;all&#34;", text)


def test_a_run_that_was_left_shows_what_had_not_ended(tmp_path: Path) -> None:
    """As the recording of a program that died has it."""
    recording = small()
    recording.json(tmp_path / "run.json")
    data = json.loads((tmp_path / "run.json").read_text())
    [run] = data["runs"]
    kept = run["kept"]
    run.update(status="running", ended=None, answer=None, result=None, kept=[])
    run["calls"][-1].update(reply=None, replied=None, message=None)
    (tmp_path / "run.json").write_text(json.dumps(data))
    text = shown(page_of(Recording.load(tmp_path / "run.json"), tmp_path))
    assert ">running</span>" in text
    assert "not finished" in text
    assert ">answered</span>" in text
    run["kept"] = kept[:1]
    (tmp_path / "run.json").write_text(json.dumps(data))
    text = shown(page_of(Recording.load(tmp_path / "run.json"), tmp_path))
    assert ">kept</span>" in text


def test_a_long_answer_is_folded(tmp_path: Path) -> None:
    """And its beginning is shown."""
    text = shown(
        page_of(recorded([Propose(["a"])], models(a="long " * 9000)), tmp_path)
    )
    assert re.search(
        r'<details class="panel answer"><summary dir="auto">long long', text
    )


def test_a_call_that_was_shown_many_links_to_the_first(tmp_path: Path) -> None:
    """And says how many there were more."""
    names = [f"m{number}" for number in range(20)]
    steps = [Propose(names), Aggregate("m0")]
    text = shown(page_of(recorded(steps, models(*names)), tmp_path))
    assert "m11</a> and 8 more" in text


# -- Safety and size -------------------------------------------------------------------


def test_all_text_is_escaped(tmp_path: Path) -> None:
    """Names, questions, answers; in the page and in its data."""
    page = page_of(hostile(), tmp_path)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert len(re.findall(r"<script", page)) == 2  # the data, the code
    data = re.findall(r'(?s)id="recording">(.*?)</script>', page)[0]
    assert json.loads(data)["runs"]
    # A template of its own is not one of ours.
    assert "{{ 7 * 7 }}" in page


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    """Its policy allows its own style and its own script, by its hash, alone."""
    page = page_of(small(), tmp_path)
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)[0]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        r"form-action 'none'; script-src 'sha256-[\w+/=]+'",
        policy,
    )
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:|//)""", page)


def test_the_page_of_64_times_3_is_under_2_mb(tmp_path: Path) -> None:
    """With all texts and messages in it."""
    assert len(page_of(wide(), tmp_path).encode()) < 2_000_000


def test_the_picture_in_the_docs_is_small() -> None:
    """It is kept in the repository; benchmarks/picture.py makes it."""
    root = Path(__file__).parent.parent
    assert (root / "benchmarks" / "picture.py").exists()
    assert 50_000 < (root / "docs" / "images" / "report.png").stat().st_size < 200_000


def test_a_notebook_gets_the_page_in_a_frame() -> None:
    """With nothing of it in the notebook's own page."""
    shown_there = small()._repr_html_()
    assert shown_there is not None
    assert shown_there.startswith("<iframe srcdoc=")
    assert "<script" not in shown_there


def test_without_jinja2_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a notebook shows the recording's text."""
    from langchain_mixture.seeing import page

    monkeypatch.setitem(sys.modules, "jinja2", None)
    page._templates.cache_clear()
    recording = Recording()
    with pytest.raises(ImportError, match="pip install jinja2, or the extra `report`"):
        recording.html(tmp_path / "page.html")
    assert recording._repr_html_() is None


# -- In a browser ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run one browser for all tests."""
    if PROGRAM is None or sys.platform != "linux":
        pytest.skip("no Chromium is installed")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def comparison() -> Any:
    """Compare a mixture with its members."""
    steps: Any = [Propose(["a", "b"]), Take(1)]
    client = models(a="A" + EVIL, b="B")
    examples = [{"input": f"{EVIL} {n}", "gold": "A"} for n in range(12)]

    def score(_: Any, text: str) -> float:
        return float(text.startswith("A"))

    options: Any = {"progress": False, "prices": {"a": PRICE, "b": PRICE}}
    return compare({"mixture": steps}, examples, score, client=client, **options)


PRICE = {"input": 1.0, "output": 2.0}


PAGES = {
    "small": small,
    "degraded": degraded,
    "hostile": hostile,
    "wide": wide,
    "agent": agents,
    "empty": Recording,
    "comparison": comparison,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write all pages, once."""
    folder = tmp_path_factory.mktemp("pages")
    written = {name: folder / f"{name}.html" for name in PAGES}
    for name, path in written.items():
        PAGES[name]().html(path)
    return written


@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_complaint(
    name: str, scheme: str, width: int, chromium: Browser, pages: dict[str, Path]
) -> None:
    """No error, no request, no dialogue, and nothing beyond the right edge."""
    seconds = chromium.open(pages[name], width=width, scheme=scheme)
    chromium.value(OPENED)
    chromium.value("new Promise(done => setTimeout(done, 50))")
    assert chromium.complaints() == []
    beyond = "document.documentElement.scrollWidth - innerWidth"
    assert chromium.value(beyond) <= 0
    assert seconds < 20  # against hanging


OPENED = """[...document.querySelectorAll('details')].slice(0, 40).forEach(
  details => { details.open = true; }
)"""
"""Opens what is folded; all prompts of 64 calls would be 18 MB."""


IS_FOLDED = """(() => {
  const at = document.activeElement;
  return at.tagName === "SUMMARY" && !at.parentElement.open;
})()"""


REACHED = """(() => {
  const at = document.activeElement;
  return at === document.body ? "" : at.closest("details.card")?.id || at.tagName;
})()"""


@pytest.mark.xdist_group("browser")
def test_the_keyboard_reaches_every_text(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    """Tab goes from card to card, Enter opens them, and the messages in them."""
    chromium.open(pages["small"], width=1280, scheme="light")
    cards = chromium.value("[...document.querySelectorAll('.card')].map(c => c.id)")
    reached: list[str] = []
    for _ in range(60):
        chromium.press("Tab", 9)
        at = chromium.value(REACHED)
        if not at:
            break
        if at in cards and chromium.value(IS_FOLDED):
            chromium.press("Enter", 13)
        reached.append(at)
    assert [card for card in cards if card not in reached] == []
    assert chromium.value("document.querySelectorAll('.card:not([open])').length") == 0
    most = 2 + 2 + 2 + 3  # what each call was sent, and its reply
    for _ in range(200):  # a browser tells a card that it was opened a little later
        sent = chromium.value("[...document.querySelectorAll('.message')].length")
        if sent == most:
            break
    assert sent == most
    assert "BUTTON" in reached


@pytest.mark.xdist_group("browser")
def test_a_link_opens_the_card_that_it_leads_to(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    """Also where it is folded."""
    chromium.open(pages["small"], width=1280, scheme="light")
    chromium.value("location.hash = '#r1-1_propose/1'")
    chromium.value("new Promise(done => setTimeout(done, 50))")
    assert chromium.value("document.getElementById('r1-1_propose/1').open")
