"""Does counting nine samples of a model beat one? Or: a fused answer, live.

make demo                               # no key: a model on this machine, counted
QUESTION="Why is the sky blue?" make demo           # its samples, fused
MODEL=openai:gpt-4o-mini make demo                  # either with another model
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import rich
from langchain_openai import ChatOpenAI
from local_model import local_model

from langchain_mixture import (
    Agent,
    ChatMixture,
    Majority,
    MixtureError,
    Propose,
    Recording,
    create_mixture,
    exact,
    self_moa,
    watch,
)
from langchain_mixture.evaluation import compare, matches

LABELS = {"type": "string", "enum": ["positive", "negative"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "label", "schema": LABELS}}
ASKED = "Is this review positive or negative? Answer with that one word.\n\n"


def compare_counting(model: Agent, name: str) -> None:
    """Label one review in view, then sixty by one sample and by a count of nine."""
    reviews = Path(__file__).with_name("reviews.tsv").read_text("utf-8").splitlines()
    rows = [review.split("\t") for review in reviews]
    examples = [{"input": ASKED + review, "gold": label} for label, review in rows]
    nine = [Propose([model] * 9), Majority()]
    page = tempfile.mkdtemp(prefix="mixture-demo-")
    print(f"Nine samples of a model, counted:\n\n{drawing(name)}\n", flush=True)

    print(f"One review: {rows[1][1]}\n", flush=True)
    recording = Recording()
    with watch():
        answer = ChatMixture(nine).invoke(
            examples[1]["input"], {"callbacks": [recording]}
        )
    recording.html(f"{page}/run.html")
    print(f"They say {answer.text}. Is one sample as good?\n", flush=True)

    started = time.perf_counter()
    found = compare(
        {"one sample": model, "nine, counted": nine}, examples, matches(exact)
    )
    found.html(f"{page}/comparison.html")
    for row in sorted(found.rows, key=lambda row: row["score"]):
        bar = "█" * round(40 * row["score"])
        print(f" {row['candidate']:14} {bar:░<40} {row['score']:.0%} right")
    print()
    rich.print(found)
    print(
        f"{time.perf_counter() - started:.0f} s. {len(rows)} reviews are few: "
        "measure on questions of your own.\n\n"
        f"The run, and the comparison, as pages:\n {page}/run.html\n"
        f" {page}/comparison.html\n"
        'A fused answer: QUESTION="Why is the sky blue?" make demo'
    )


def drawing(name: str) -> str:
    """Draw the pipeline."""
    others = "… nine times".center(len(name))
    return (
        f"           ┌──► {name} ──┐\n"
        f"  a review ┼──► {others} ──┼──► Majority ──► the label\n"
        f"           └──► {name} ──┘"
    )


def fuse(question: str, model: Agent, name: str) -> None:
    """Answer a question: each sample as it arrives, then what they are fused into."""
    graph = create_mixture(self_moa(model, samples=4, temp=None, max_tokens=None))
    print(f"{question}\n(4 samples of {name}, fused by the same)\n", flush=True)
    started = time.perf_counter()
    for update in graph.stream(
        {"messages": [("user", question)]}, stream_mode="updates"
    ):
        for node, change in update.items():
            for reply in change.get("replies", []):
                text = reply["text"] or reply["error"]
                cut = f" · cut off {reply['cut_off']}" if reply["cut_off"] else ""
                print(f"── {node} · {reply['time']:.1f} s{cut}\n{text}\n", flush=True)
            for message in change.get("messages", []):
                mixture = change["mixture"]
                seconds = time.perf_counter() - started
                print(f"══ The answer ({mixture['status']})\n{message.text}\n")
                usage = mixture["usage"]
                print(
                    f"{usage['input_tokens']} tokens read, "
                    f"{usage['output_tokens']} written, {seconds:.1f} s"
                )


def local(url: str, **settings: Any) -> ChatOpenAI:
    """Return the model of `local_model`, which is tiny: it shows that things work."""
    return ChatOpenAI(base_url=url, api_key="none", model="smollm2-135m", **settings)


def main() -> None:
    question, name = os.environ.get("QUESTION"), os.environ.get("MODEL")
    if name:
        fuse(question, name, name) if question else compare_counting(name, name)
        return
    with local_model() as url:
        if question:
            fuse(question, local(url, max_tokens=120), "SmolLM2-135M on this machine")
            print("The model is tiny: this shows that things work, and not how well.")
        else:
            bound = {"response_format": SCHEMA}
            model = local(url, temperature=1, max_tokens=16, extra_body=bound)
            compare_counting(model, "SmolLM2-135M")


if __name__ == "__main__":
    try:
        main()
    except MixtureError as error:
        raise SystemExit(f"demo: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
