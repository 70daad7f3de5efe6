"""Nine samples of a small model against one, counted; or a fused answer, live.

make demo                               # no key: a model on this machine, counted
QUESTION="Why is the sky blue?" make demo           # its samples, fused
MODEL=openai:gpt-4o-mini make demo                  # the same with another model
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any

from langchain_openai import ChatOpenAI
from local_model import local_model

from langchain_mixture import (
    Agent,
    MixtureError,
    Propose,
    Response,
    Step,
    create_mixture,
    self_moa,
)


@dataclass(frozen=True)
class MostCommon(Step):
    """Keeps the answer that most samples gave."""

    def keep(self, responses: Sequence[Response], replies: object) -> list[Response]:
        texts = [response["text"] for response in responses]
        return [responses[texts.index(mode(texts))]]


LABELS = {"type": "string", "enum": ["positive", "negative"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "label", "schema": LABELS}}
ASKED = "What is the sentiment of this review, positive or negative?\n\n"


def count(model: Agent) -> None:
    """Label thirty reviews by one sample, and by a count of nine."""
    graph = create_mixture([Propose([model] * 9), MostCommon()])
    reviews = Path(__file__).with_name("reviews.tsv").read_text("utf-8").splitlines()
    print(
        "Positive or negative? A small model answers nine times; the majority counts.\n"
    )
    single = counted = 0
    started = time.perf_counter()
    for label, review in (line.split("\t") for line in reviews):
        state = graph.invoke({"messages": [("user", ASKED + review)]})
        right = f'"{label}"'
        votes = state["mixture"]["history"][0]["outputs"].count(right)
        verdict = "right" if state["messages"][-1].text == right else "wrong"
        single, counted = single + votes, counted + (verdict == "right")
        print(f" {verdict} {votes} of 9  {review}", flush=True)
    calls, seconds = 9 * len(reviews), time.perf_counter() - started
    print(
        f"\n one sample    {single / calls:4.0%} right (the mean of the nine)"
        f"\n nine, counted {counted / len(reviews):4.0%} right\n\n"
        f"{calls} calls in {seconds:.0f} s. {len(reviews)} reviews are few: "
        "measure on your own questions.\n"
        'A fused answer to one of them: QUESTION="Why is the sky blue?" make demo'
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
        fuse(question or "Why is the sky blue? Answer in two sentences.", name, name)
        return
    with local_model() as url:
        if question:
            fuse(question, local(url, max_tokens=120), "SmolLM2-135M on this machine")
            print("The model is tiny: this shows that things work, and not how well.")
        else:
            bound = {"response_format": SCHEMA}
            count(local(url, temperature=1, max_tokens=16, extra_body=bound))


if __name__ == "__main__":
    try:
        main()
    except MixtureError as error:
        raise SystemExit(f"demo: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
