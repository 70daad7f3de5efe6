"""A real browser for tests: Chromium without a window, driven over two pipes."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")

WIRED = """
import fcntl, os, sys
reads, writes = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
os.dup2(reads, 3)  # from there it reads its commands
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of Chromium, by its DevTools protocol."""

    def __init__(self, write: int, read: int) -> None:
        self.events: list[dict[str, Any]] = []
        """What it reported since the page was opened."""
        self._write, self._read = write, read
        self._number = 0
        self._rest = b""
        self._session: dict[str, str] = {}
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> Any:
        """Do one command, and give its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(self._write, json.dumps({**message, **self._session}).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], 60)[0], "the browser is silent"
            self._rest += os.read(self._read, 1 << 20)
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, *, width: int, scheme: str) -> float:
        """Open a file in a window of a width and a colour scheme; give the seconds."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.do("Emulation.setDeviceMetricsOverride", **size, mobile=width < 500)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.do("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        started = time.perf_counter()
        self.do("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())
        return time.perf_counter() - started

    def value(self, expression: str) -> Any:
        """Give the value of a script's expression on the page."""
        wanted = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.do("Runtime.evaluate", **wanted)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.do("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.do("Input.dispatchKeyEvent", type="keyUp", **about)

    def complaints(self) -> list[Any]:
        """Give what the page logged, raised or asked of the network."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        found: list[Any] = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method in (*kinds, "Log.entryAdded", "Page.javascriptDialogOpening"):
                found.append((method, params))
            if method == "Network.requestWillBeSent" and params["type"] != "Document":
                found.append(params["request"]["url"])
        return found


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser that keeps its files in a folder, for the length of a block."""
    assert PROGRAM is not None
    ours, its = os.pipe(), os.pipe()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-dev-shm-usage", "--disable-background-networking"]
    flags += [f"--user-data-dir={folder}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-c", WIRED, str(ours[0]), str(its[1]), PROGRAM, *flags],
        pass_fds=(ours[0], its[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Browser(ours[1], its[0])
    finally:
        process.kill()
        process.wait()
        for pipe in (*ours, *its):
            os.close(pipe)
