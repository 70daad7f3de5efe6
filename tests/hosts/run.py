"""Run the hosts' own tests with a mixture in the place of each chat model.

    python tests/hosts/run.py                 # everything: about eight minutes
    python tests/hosts/run.py --suite langgraph-supervisor --mixture alone

The hosts are LangChain's `create_agent`, LangGraph's `create_react_agent`, the
supervisor and deepagents. Their source distributions, of exactly the versions that
are installed, are downloaded into a temporary directory. Each suite is run as it is
(the control) and with every chat model that it gives to a factory or a middleware in
a `ChatMixture`, see `mixture_plugin.py`. What fails then, and not in the control, is
printed, but for the differences in `expected.toml`. Exit status 0: there is no more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
MIXTURES = ("alone", "advisers", "nested")
SECONDS_A_TEST = 30
SECONDS_A_RUN = 1800
LOST = ("failed", "it was not run")


@dataclass(frozen=True)
class Suite:
    """The tests of one host."""

    package: str
    """The host's distribution."""
    tests: str
    """Where its source distribution has the tests that concern chat models."""
    ours: str | None = None
    """Our own tests, run in their place if the distribution holds none."""


@dataclass(frozen=True)
class Difference:
    """Tests that may fail with mixtures, see `expected.toml`."""

    suite: str
    mixtures: Sequence[str]
    reason: str
    tests: Sequence[str]
    sometimes: bool = False
    skip: bool = False


SUITES = [
    Suite("langchain", "tests/unit_tests/agents"),
    Suite("langgraph-prebuilt", "tests"),
    Suite("langgraph-supervisor", "tests"),
    Suite("deepagents", "tests/unit_tests", ours="deep_agents.py"),
]

Outcomes = Mapping[str, tuple[str, str]]
"""Of each test, how it ended and why."""


def unpacked(suite: Suite, into: Path) -> Path:
    """Return the directory with the suite's tests and its pytest settings."""
    wanted = f"{suite.package}=={version(suite.package)}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    how = ["--no-deps", "--no-binary", suite.package, "--dest", str(into)]
    subprocess.run([*pip, "download", *how, wanted], check=True, timeout=600)
    name = suite.package.replace("-", "_")
    archive = next(into.glob(f"{name}-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(into, _tests_and_settings(tar), filter="data")
    home = into / archive.name.removesuffix(".tar.gz")
    if not (home / suite.tests).exists():
        if suite.ours is None:
            sys.exit(f"the source distribution of {wanted} holds no {suite.tests}")
        print(f"{wanted} holds no tests: ours are run ({suite.ours})", flush=True)
        (home / suite.tests).mkdir(parents=True)
        shutil.copy(HERE / suite.ours, home / suite.tests / f"test_{suite.ours}")
        settings = '[tool.pytest.ini_options]\nasyncio_mode = "auto"\n'
        (home / "pyproject.toml").write_text(settings)
    return home


def _tests_and_settings(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar.getmembers():
        inside = Path(*Path(member.name).parts[1:])
        if inside.parts[:1] == ("tests",) or inside == Path("pyproject.toml"):
            yield member


def differences(suite: Suite, mixture: str) -> list[Difference]:
    """Return what may differ from the control."""
    listed = tomllib.loads((HERE / "expected.toml").read_text())["difference"]
    known = [Difference(**difference) for difference in listed]
    return [
        one for one in known if one.suite == suite.package and mixture in one.mixtures
    ]


def run(
    suite: Suite,
    home: Path,
    mixture: str,
    only: Sequence[str] = (),
    skipped: Sequence[str] = (),
) -> Outcomes:
    """Run the suite, or only some of its tests, and return how each ended."""
    outcomes = home / f"{mixture}{'-again' if only else ''}.jsonl"
    options = ["-p", "mixture_plugin", f"--mixture={mixture}", f"--outcomes={outcomes}"]
    options += ["-p", "no:cacheprovider", "--quiet", "--tb=native"]
    options += ["--override-ini=addopts=", f"--timeout={SECONDS_A_TEST}"]
    options += ["--disable-socket", "--allow-unix-socket"]
    options += [f"--deselect={test}" for test in skipped]
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    environment |= {"PYTHONPATH": str(HERE), "LANGSMITH_TRACING": "false"}
    with (home / f"{mixture}.log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "pytest", *(only or [suite.tests]), *options],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=SECONDS_A_RUN,
            check=False,  # failures are what is looked for
        )
    if not outcomes.exists():
        sys.exit((home / f"{mixture}.log").read_text())
    lines = map(json.loads, outcomes.read_text().splitlines())
    return {line["test"]: (line["outcome"], line["why"]) for line in lines}


def new_failures(control: Outcomes, outcomes: Outcomes) -> dict[str, str]:
    """Return what passes in the control and not here, each with its cause."""
    return {
        test: outcomes.get(test, LOST)[1]
        for test, (outcome, _) in control.items()
        if outcome == "passed" and outcomes.get(test, LOST)[0] != "passed"
    }


def compared(suite: Suite, home: Path, mixture: str, control: Outcomes) -> int:
    """Run the suite with mixtures and print what differs from the control.

    Return how many of the differences are in no list, or listed and not there.
    """
    known = differences(suite, mixture)
    allowed = {test for one in known for test in one.tests}
    skipped = {test for one in known if one.skip for test in one.tests}
    maybe = {test for one in known if one.sometimes for test in one.tests}
    failures = new_failures(control, run(suite, home, mixture, skipped=sorted(skipped)))
    surprises = {test: why for test, why in failures.items() if test not in allowed}
    if surprises:  # some tests measure time: they are asked once more, alone
        again = run(suite, home, mixture, only=list(surprises))
        passed = [test for test, (outcome, _) in again.items() if outcome == "passed"]
        surprises = {test: why for test, why in surprises.items() if test not in passed}
    stale = [test for test in allowed - maybe if test not in failures]
    counts = f"{len(surprises)} fail, beside {len(failures.keys() & allowed)} listed"
    print(f"{suite.package}, {mixture}: {counts}", flush=True)
    for test, why in surprises.items():
        print(f"  FAILED {test}\n    {' | '.join(why.splitlines())[:200]}")
    for test in stale:
        print(f"  PASSED {test}: take it off expected.toml")
    return len(surprises) + len(stale)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Run the hosts' tests with mixtures.")
    names = [suite.package for suite in SUITES]
    parser.add_argument("--suite", choices=names, action="append")
    parser.add_argument("--mixture", choices=MIXTURES, action="append")
    parser.add_argument("--keep", type=Path, help="a directory for logs and outcomes")
    wanted = parser.parse_args()
    os.nice(10)
    surprises = 0
    with tempfile.TemporaryDirectory() as directory:
        for suite in SUITES:
            if wanted.suite and suite.package not in wanted.suite:
                continue
            home = unpacked(suite, Path(directory))
            control = run(suite, home, "control")
            counts = Counter(outcome for outcome, _ in control.values())
            said = ", ".join(f"{n} {outcome}" for outcome, n in counts.items())
            print(f"\n{suite.package} {version(suite.package)}, control: {said}")
            for mixture in wanted.mixture or MIXTURES:
                surprises += compared(suite, home, mixture, control)
            if wanted.keep is not None:
                keep = wanted.keep / suite.package
                shutil.copytree(home, keep, dirs_exist_ok=True, ignore=_but_results)
    print(f"\n{surprises} differences that expected.toml does not explain")
    return 1 if surprises else 0


def _but_results(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith((".jsonl", ".log"))]


if __name__ == "__main__":
    sys.exit(main())
