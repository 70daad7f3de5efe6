"""What must go on withstanding: mixed questions, kills, and runs that are cancelled.

    python benchmarks/withstand.py mixed [RUNS]      # 1,000 over threads and two loops
    python benchmarks/withstand.py kills [RUNS]      # 76 on SQLite and PostgreSQL
    python benchmarks/withstand.py cancelled [RUNS]  # 5,000, every other one cancelled

Each prints what it counted, and exits with 1 where something does not hold. The kills
take about ten minutes on two cores, the others two.
"""

import asyncio
import gc
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

sys.path.insert(0, str(Path(__file__).parent.parent))
from langchain_mixture import Aggregate, ChatMixture, Propose, Synthesize
from tests.databases import postgres_programs, running_postgres
from tests.openai_stub import serve
from tests.resumable import CONFIG, graph


class Echo(BaseChatModel):
    """Answers with every question number that it was shown, after a random pause."""

    name: str | None = None
    begun: Any = None
    ended: Any = None

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _answer(self, messages: list[BaseMessage]) -> ChatResult:
        text = " ".join(message.text for message in messages)
        seen = " ".join(sorted(set(re.findall(r"Q\d+", text))))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(seen))])

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        time.sleep(random.random() * 0.004)
        return self._answer(messages)

    async def _agenerate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        if self.begun is not None:
            self.begun.update(["begun"])
        try:
            await asyncio.sleep(random.random() * 0.02)
            return self._answer(messages)
        finally:
            if self.begun is not None:
                self.begun.update(["ended"])


def pipeline(**settings: Any) -> ChatMixture:
    agents = [Echo(name=name, **settings) for name in "abc"]
    return ChatMixture([Propose(agents), Synthesize(agents), Aggregate(agents[0])])


def mixed(runs: int = 1000) -> dict[str, bool]:
    """Ask on threads and on two event loops at once, all by one mixture."""
    model = pipeline()
    wrong: list[str] = []

    def checked(number: int, answer: str) -> None:
        if answer != f"Q{number}":
            wrong.append(f"Q{number} was answered with {answer}")

    def ask(number: int) -> None:
        checked(number, model.invoke(f"Q{number}").text)

    async def aask(numbers: range) -> None:
        async def one(number: int) -> None:
            checked(number, (await model.ainvoke(f"Q{number}")).text)

        await asyncio.gather(*(one(number) for number in numbers))

    third = runs // 3
    loops = [range(third), range(third, 2 * third)]
    with ThreadPoolExecutor(16) as pool:
        tasks = [pool.submit(asyncio.run, aask(numbers)) for numbers in loops]
        tasks += [pool.submit(ask, number) for number in range(2 * third, runs)]
        for task in tasks:
            task.result()
    print(f"{runs} runs, {len(wrong)} wrong", *wrong[:3], sep="\n")
    return {"no question saw another": not wrong}


def cancelled(runs: int = 5000) -> dict[str, bool]:
    """Cancel every other run at a random moment."""
    calls = Counter[str]()
    model = pipeline(begun=calls)
    outcomes = Counter[str]()

    async def one(number: int) -> None:
        task = asyncio.create_task(model.ainvoke(f"Q{number}"))
        if number % 2:
            await asyncio.sleep(random.random() * 0.05)
            task.cancel()
        try:
            right = (await task).text == f"Q{number}"
            outcomes["answered" if right else "wrong"] += 1
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1

    async def all_of_them() -> int:
        await model.ainvoke("Q0")
        before = len(asyncio.all_tasks())
        for begin in range(0, runs, 250):
            await asyncio.gather(*(one(n) for n in range(begin, begin + 250)))
        gc.collect()
        return len(asyncio.all_tasks()) - before

    left = asyncio.run(all_of_them())
    gc.collect()
    kept = Counter(
        type(thing).__qualname__
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith("langchain_mixture.running")
        and type(thing).__qualname__ in ("Run", "Attempt", "Wait", "Recorder")
    )
    print(
        f"{dict(outcomes)}; calls {dict(calls)}; tasks left {left}; kept {dict(kept)}"
    )
    return {
        "half are cancelled, the rest is right": not outcomes["wrong"]
        and outcomes["answered"] >= runs // 2,
        "every call has ended": calls["begun"] == calls["ended"],
        "no task is left": left == 0,
        "no thread is left": threading.active_count() == 1,
        "nothing of a run is left": not kept,
    }


def saved_agents(url: str, database: str) -> list[str]:
    """Return the agents whose answers a checkpoint or its pending writes hold."""
    kind: Any = PostgresSaver if database.startswith("postgresql:") else SqliteSaver
    with kind.from_conn_string(database) as saver:
        saver.setup()
        state = graph(url, saver).get_state(CONFIG)
    rows = state.values.get("mixture", {}).get("history", [])
    calls = [call["agent"] for row in rows for call in row["llm_calls"]]
    results: list[Any] = [task.result or {} for task in state.tasks]
    replies = [reply for result in results for reply in result.get("replies", [])]
    replies += state.values.get("replies", [])
    return [*calls, *(r["agent"] for r in replies if r["error"] is None)]


def kills(runs: int = 76) -> dict[str, bool]:
    """Kill a process at a random moment of its run; another one goes on."""
    programs = postgres_programs()
    again: list[str] = []
    found = Counter[str]()
    with databases(programs) as database_of:
        for number in range(runs):
            kind, mode = [(k, m) for k in database_of for m in ("sync", "async")][
                number % (2 * len(database_of))
            ]
            saved, before, after = _killed(database_of[kind](number), mode, number)
            found[f"{kind} {mode}"] += 1
            found["saved answers"] += len(saved)
            found["calls made twice"] += sum(n > 1 for n in after.values())
            again += [f"{number}: {a}" for a in saved if after[a] > before[a]]
    print(dict(found), "saved and asked again:", again or "none")
    return {"no saved answer is asked again": not again}


def _killed(
    database: str, mode: str, number: int
) -> tuple[list[str], Counter[str], Counter[str]]:
    """Kill a run; return who had a saved answer, and whom it asked, and all asked."""
    moment = random.Random(number)
    pause, until = moment.random() * 0.08, moment.randint(1, 6)

    def answer(request: dict[str, Any]) -> str:
        time.sleep(moment.random() * 0.05)
        return f"{request['model']}!"

    with serve(answer) as stub:
        command = [sys.executable, "-m", "tests.resumable", stub.url, database, mode]

        def start() -> subprocess.Popen[str]:
            root = Path(__file__).parent.parent
            return subprocess.Popen(
                command, cwd=root, stdout=subprocess.PIPE, text=True
            )

        process = start()
        while len(stub.requests) < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        saved = saved_agents(stub.url, database)
        before = Counter(stub.asked())
        output, _ = start().communicate(timeout=120)
        if output.strip() != "f!":
            raise SystemExit(f"{number}: no answer after a kill: {output!r}")
        return saved, before, Counter(stub.asked())


@contextmanager
def databases(programs: Path | None) -> Iterator[dict[str, Callable[[int], str]]]:
    """Give what makes a new database, by kind."""
    import psycopg

    home = Path(tempfile.mkdtemp(prefix="mixture-kills-"))
    makers: dict[str, Callable[[int], str]] = {"sqlite": lambda n: str(home / f"{n}")}
    try:
        if programs is None:
            print("no PostgreSQL: on SQLite alone")
            yield makers
            return
        with running_postgres(programs) as url:

            def create(number: int) -> str:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"create database k{number}")
                return url.replace("/postgres", f"/k{number}")

            yield makers | {"postgres": create}
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("mixed", "kills", "cancelled"):
        raise SystemExit(__doc__)
    test: Any = {"mixed": mixed, "kills": kills, "cancelled": cancelled}[sys.argv[1]]
    held = test(*map(int, sys.argv[2:]))
    for what, holds in held.items():
        print("ok  " if holds else "FAIL", what)
    sys.exit(0 if all(held.values()) else 1)
