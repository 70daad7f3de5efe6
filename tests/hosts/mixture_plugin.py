"""A pytest plugin: every chat model that a suite gives to an agent is in a mixture.

Loaded with `-p mixture_plugin --mixture=alone --outcomes=FILE`. It replaces the
factories and the middlewares that take a chat model by ones that put the model into
a `ChatMixture` first, before any test module imports them, and writes the outcome of
each test to a file. With `--mixture=control` it only writes.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, cast

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableBinding, RunnableSequence

from langchain_mixture import Aggregate, ChatMixture, Propose

FACTORIES = {
    "langchain.agents": "create_agent",
    "langgraph.prebuilt": "create_react_agent",
    "langgraph_supervisor": "create_supervisor",
    "deepagents": "create_deep_agent",
}
"""Where each factory is found; it is replaced in every module which has it."""

MIDDLEWARES = ("langchain.agents.middleware", "deepagents.middleware")
"""The packages whose middlewares are given chat models."""


class Adviser(BaseChatModel):
    """A model in front of the host's own, which takes any tools and calls none."""

    @property
    def _llm_type(self) -> str:
        return "adviser"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Advice."))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def _alone(model: BaseChatModel) -> ChatMixture:
    return ChatMixture([Propose([model])])


def _advisers(model: BaseChatModel) -> ChatMixture:
    return ChatMixture([Propose([Adviser(), Adviser()]), Aggregate(model)])


def _nested(model: BaseChatModel) -> ChatMixture:
    return _alone(_alone(model))


VARIANTS: dict[str, Callable[[BaseChatModel], ChatMixture]] = {
    "alone": _alone,
    "advisers": _advisers,
    "nested": _nested,
}


def mixed(value: Any, mixture: Callable[[BaseChatModel], ChatMixture]) -> Any:
    """Return the value with each chat model in it replaced by a mixture around it."""
    again = functools.partial(mixed, mixture=mixture)
    if isinstance(value, ChatMixture):
        return value  # a factory which calls another one
    if isinstance(value, BaseChatModel):
        return mixture(value)
    if isinstance(value, RunnableBinding):
        return value.model_copy(update={"bound": again(value.bound)})
    if isinstance(value, RunnableSequence):
        return RunnableSequence(*map(again, value.steps), name=value.name)
    if type(value) in (list, tuple):
        return type(value)(map(again, value))
    if type(value) is dict:
        return {key: again(item) for key, item in value.items()}
    return value


def _chosen(choose: Callable[..., Any], mixture: Callable[..., Any]) -> Any:
    """Return the function of `create_react_agent` which chooses a model, mixed."""
    if inspect.iscoroutinefunction(choose):

        @functools.wraps(choose)
        async def later(*args: Any, **kwargs: Any) -> Any:
            return mixed(await choose(*args, **kwargs), mixture)

        return later

    @functools.wraps(choose)
    def now(*args: Any, **kwargs: Any) -> Any:
        return mixed(choose(*args, **kwargs), mixture)

    return now


def _given_mixtures(function: Any, mixture: Callable[..., Any]) -> Any:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # the function itself is to complain
            return function(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name == "model" and inspect.isfunction(value):
                bound.arguments[name] = _chosen(value, mixture)
            else:
                bound.arguments[name] = mixed(value, mixture)
        return function(*bound.args, **bound.kwargs)

    return call


def _submodules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.iter_modules(root.__path__, f"{package}."):
        yield importlib.import_module(found.name)


def _replace_everywhere(original: Any, substitute: Any) -> None:
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is original:
                setattr(module, name, substitute)


def _install(mixture: Callable[[BaseChatModel], ChatMixture]) -> None:
    classes = {
        member: None
        for package in MIDDLEWARES
        for module in _submodules(package)
        for member in vars(module).values()
        if inspect.isclass(member) and issubclass(member, AgentMiddleware)
    }
    for module_name, name in FACTORIES.items():
        factory = getattr(importlib.import_module(module_name), name)
        _replace_everywhere(factory, _given_mixtures(factory, mixture))
    for cls in classes:
        if "__init__" in vars(cls):
            cls.__init__ = _given_mixtures(cls.__init__, mixture)  # type: ignore[method-assign] # the purpose of this plugin


def _compare_without_reports() -> None:
    """Compare messages without what a mixture adds: its report and its name."""
    compare = AIMessage.__eq__

    def equal(self: object, other: object) -> bool:
        return compare(_without_report(self), _without_report(other))

    AIMessage.__eq__ = equal  # type: ignore[method-assign] # for this run of tests


def _without_report(value: Any) -> Any:
    if not isinstance(value, AIMessage) or "mixture" not in value.response_metadata:
        return value
    own = ("mixture", "model_name")
    rest = {k: v for k, v in value.response_metadata.items() if k not in own}
    return value.model_copy(update={"response_metadata": rest})


class Outcomes:
    """Writes one line a test: what it is called, how it ended, and why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.worst: dict[str, str] = {}
        self.why: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[Any]) -> None:
        # A timeout can strike between two lines; pytest cannot print such a frame.
        error = call.excinfo.value if call.excinfo is not None else None
        if error is not None and _has_no_line(error.__traceback__):
            said = pytest.fail.Exception(f"{type(error).__name__}: {error}")
            call.excinfo = pytest.ExceptionInfo.from_exception(_raised(said))

    @pytest.hookimpl
    def pytest_exception_interact(
        self, call: pytest.CallInfo[Any], report: pytest.CollectReport
    ) -> None:
        if call.excinfo is not None:
            self.why.setdefault(report.nodeid, _why(call.excinfo.value))

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid
        if self.worst.get(test) != "failed" and report.outcome != "passed":
            self.worst[test] = report.outcome
        if report.when == "teardown":
            self._write(test, self.worst.get(test, "passed"))

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.why[report.nodeid] = str(report.longrepr)
            self._write(report.nodeid, "failed")

    def _write(self, test: str, outcome: str) -> None:
        why = self.why.get(test, "")
        line = json.dumps({"test": test, "outcome": outcome, "why": why})
        with self.path.open("a") as file:
            file.write(f"{line}\n")


def _has_no_line(frame: TracebackType | None) -> bool:
    while frame is not None:
        if cast("int | None", frame.tb_lineno) is None:
            return True
        frame = frame.tb_next
    return False


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001 # it only gets a traceback
        return raised


def _why(error: BaseException) -> str:
    said = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno}" for frame in frames[-1:]]
    return "\n".join([said, *where])


@pytest.hookimpl
def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options of this plugin."""
    parser.addoption("--mixture", choices=["control", *VARIANTS], required=True)
    parser.addoption("--outcomes", type=Path, required=True)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Replace the factories before any file of the suite is imported."""
    variant = early_config.known_args_namespace.mixture
    if variant != "control":
        _compare_without_reports()
        _install(VARIANTS[variant])


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    """Begin to write outcomes."""
    config.pluginmanager.register(Outcomes(config.getoption("--outcomes")))
