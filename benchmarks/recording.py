"""What it costs to record a run, in CPU time, against a handler that ignores all.

    python benchmarks/recording.py

Models that answer at once, six, six and six, then one: the time is the mixture's own.
The kinds of run take turns, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from langchain_mixture import Aggregate, Propose, Recording, Synthesize, create_mixture

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.models import Scripted  # beside the project

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
"""Runs of each kind."""


class Ignores(BaseCallbackHandler):
    """Hears of every run, and does nothing with it."""

    run_inline = True

    def on_custom_event(self, *args: Any, **kwargs: Any) -> None:
        """Ignore an event."""

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        """Ignore a run."""

    on_chain_end = on_chain_error = on_chat_model_start = on_chain_start
    on_llm_end = on_llm_error = on_chain_start


class Deaf(Ignores):
    """The same, without an ear for events."""

    on_custom_event = BaseCallbackHandler.on_custom_event


KINDS: dict[str, Callable[[], list[BaseCallbackHandler]]] = {
    "no handler": list,
    "ignores all, no events": lambda: [Deaf()],
    "ignores all": lambda: [Ignores()],
    "recording": lambda: [Recording()],
}


def main() -> None:
    names = [f"m{number}" for number in range(6)]
    client: Any = {n: Scripted(model=n, script="word " * 400) for n in [*names, "last"]}
    steps = [Propose(names), Synthesize(names), Synthesize(names), Aggregate("last")]
    graph = create_mixture(steps, client=client)
    inputs: Any = {"messages": [("user", "What is an ion?")]}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    gc.disable()
    for number in range(RUNS):
        for kind, handlers in KINDS.items():
            config: Any = {"callbacks": handlers()}
            started = time.process_time()
            graph.invoke(inputs, config)
            times[kind].append(time.process_time() - started)
        if number % 10 == 0:
            gc.collect()
    ignored = median(times["ignores all"])
    for kind, seconds in times.items():
        middle = median(seconds)
        print(f"{kind:24} {1000 * middle:6.2f} ms  {middle / ignored - 1:+.1%}")


if __name__ == "__main__":
    main()
