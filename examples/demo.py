"""Self-MoA, live: each proposal as it arrives, then the answer they are fused into.

Without a key it asks a small model on this machine; with one, the model in MODEL:

    OPENAI_API_KEY=sk-... MODEL=openai:gpt-4o-mini python examples/demo.py "Why?"
"""

import os
import sys
import time
from contextlib import ExitStack

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from local_model import local_model

from langchain_mixture import create_mixture, self_moa


def main(question: str) -> None:
    with ExitStack() as stack:
        if name := os.environ.get("MODEL", ""):
            model: BaseChatModel = init_chat_model(name)
        else:
            name = "SmolLM2-135M on this machine"
            url = stack.enter_context(local_model())
            model = ChatOpenAI(base_url=url, api_key="none", model="smollm2-135m")
        print(f"{question}\n(4 samples of {name}, fused by the same)\n", flush=True)
        answer(model, question)
        if not os.environ.get("MODEL"):
            print("The model is tiny: this shows that things work, and not how well.")


def answer(model: BaseChatModel, question: str) -> None:
    graph = create_mixture(self_moa(model, samples=4, max_tokens=120))
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


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Why is the sky blue? Answer in two sentences.")
