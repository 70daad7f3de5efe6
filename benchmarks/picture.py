"""Make docs/images/report.png: the report of a scripted run, in a real browser.

    python benchmarks/picture.py

The four agents and the editor are functions with set answers and set delays, so that
the picture is the same each time. It needs Chromium.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_mixture import Aggregate, ChatMixture, Propose
from langchain_mixture.seeing import Recording

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.browser import browser  # beside the project

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "report.png"

QUESTION = "Our nightly job takes six hours. Should we rewrite it in Rust?"

MEASURE = (
    "Not yet. Profile the job first: nightly jobs mostly wait for the database or the "
    "network, and a faster language waits just as long. If one stage burns the CPU, "
    "rewrite that stage alone and call it from what you have."
)
ANSWERS = {
    "measure": (MEASURE, 1.9, 212),
    "database": (
        "Not yet. Profile the job first: nightly jobs mostly wait for the database or "
        "the network. Look for queries in a loop and for missing indexes; batching "
        "them often turns hours into minutes.",
        1.4,
        188,
    ),
    "schedule": (
        "Does it have to be faster? If it ends before morning, six hours at night cost "
        "nothing. Run only what changed since yesterday, and split the rest over "
        "several workers.",
        1.1,
        151,
    ),
    "rewrite": (
        "Yes. Rust will be five to ten times faster on the same machine, and the types "
        "catch what breaks at 3 a.m. today.",
        0.8,
        97,
    ),
}
FUSED = (
    "Not as the first step. Profile one night: if the job waits for the database or "
    "the network, as most do, Rust waits just as long; fix queries in a loop, batch "
    "them, and process only what changed since yesterday. If a single stage burns the "
    "CPU, rewrite that stage alone and keep the rest. A speed-up of five to ten times, "
    "as one answer promises, holds for CPU-bound code only."
)


def agent(name: str, text: str, seconds: float, tokens: int) -> Runnable[Any, Any]:
    """Make an agent that answers after a while."""

    async def answer(messages: Any) -> AIMessage:
        await asyncio.sleep(seconds)
        read = sum(len(message.text) for message in messages) // 4
        usage: Any = {"input_tokens": read, "output_tokens": tokens}
        usage["total_tokens"] = read + tokens
        return AIMessage(text, usage_metadata=usage)

    return RunnableLambda(answer, name=name)


async def main() -> None:
    agents: Any = [agent(name, *said) for name, said in ANSWERS.items()]
    steps = [Propose(agents), Aggregate(agent("editor", FUSED, 1.6, 240))]
    recording = Recording()
    config: Any = {"callbacks": [recording]}
    await ChatMixture(steps, name="advisers").ainvoke(QUESTION, config)
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "report.html"
        recording.html(page)
        with browser(Path(folder) / "browser") as opened:
            opened.open(page, width=1180, scheme="light")
            whole = {"x": 0, "y": 0, "width": 1180, "height": 1330, "scale": 1}
            shot = opened.do(
                "Page.captureScreenshot", clip=whole, captureBeyondViewport=True
            )
    PICTURE.write_bytes(base64.b64decode(shot["data"]))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    asyncio.run(main())
