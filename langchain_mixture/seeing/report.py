"""The report of recorded runs: what the page shows, worked out from plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeGuard

from langchain_mixture.errors import counted
from langchain_mixture.prices import in_dollars
from langchain_mixture.seeing.page import HERE, rendered, script, shaded
from langchain_mixture.seeing.recorded import RecordedCall, RecordedRun
from langchain_mixture.steps.similarity import similarity, vectors_of

LONGEST_ANSWER: Final = 20_000
"""Characters of an answer that is not folded."""

SNIPPET: Final = 220
"""Characters of a folded text that are shown."""

DENSE: Final = 12
"""More calls of one step than this are shown one line each."""

MOST_LINKS: Final = 12
"""Responses that a call was shown and that its card links to, at most."""

MOST_NUMBERS: Final = 8
"""Texts whose likeness is also written in numbers, at most."""

MOST_COMPARED: Final = 64
"""Texts that are compared with each other, at most."""

_TONES: Final = {"complete": "good", "degraded": "warn", "failed": "bad"}


def report(runs: Sequence[RecordedRun], data: str) -> str:
    """Return the page for runs.

    Args:
        runs: The runs.
        data: The same as JSON, which the page holds.

    Raises:
        ImportError: The package jinja2 is not installed.
    """
    places = {run["id"]: f"r{number}" for number, run in enumerate(runs, 1)}
    turns = {
        root: n for n, root in enumerate(dict.fromkeys(r["root"] for r in runs), 1)
    }
    sections = [
        _Section(run, number, runs, places, turns[run["root"]]).values()
        for number, run in enumerate(runs)
    ]
    code, allowed = script("report.js")
    many = len(runs) > 1
    title = f"{counted(len(runs), 'run')} of mixtures"
    if len(sections) == 1:
        title = sections[0]["title"]
    return rendered(
        HERE,
        "report.html.jinja",
        extra="report",
        whole=True,
        allowed=allowed,
        code=code,
        data=data.replace("<", "\\u003c"),
        title=title,
        facts=_facts_of_all(runs, len(turns)) if many else [],
        many=many,
        runs=sections,
    )


def _facts_of_all(runs: Sequence[RecordedRun], turns: int) -> list[str]:
    calls = [call for run in runs for call in run["calls"]]
    facts = [counted(len(runs), "run"), counted(len(calls), "call")]
    if turns < len(runs):
        facts.insert(0, counted(turns, "turn"))
    # The tokens of a mixture inside another are part of those of the one around it.
    outer = [run for run in runs if run["parent"] is None]
    facts.append(_seconds(sum(_ended(run) - run["began"] for run in outer)))
    tokens = sum(_tokens(run) for run in outer)
    facts += [f"{tokens:,} tokens"] if tokens else []
    costs = [cost for run in outer if (cost := _cost(run)) is not None]
    if costs:
        facts.append(in_dollars(sum(costs)))
    return facts


@dataclass(frozen=True)
class _Section:
    """What the page shows of one run."""

    run: RecordedRun
    at: int
    runs: Sequence[RecordedRun]
    places: Mapping[str, str]
    """The anchors of the runs, by id."""
    turn: int

    def values(self) -> dict[str, Any]:
        """Return what the template needs."""
        run = self.run
        question = next(
            (_text(m) for m in reversed(run["messages"]) if m["type"] == "human"), ""
        )
        title = _short(question, 140) or run["name"]
        answer = "" if run["answer"] is None else _text(run["answer"])
        reasons = list((run["result"] or {}).get("reasons", []))
        if run["error"]:
            reasons = [run["error"]]
        lanes = self._lanes()
        return {
            "at": self.at,
            "anchor": self.places[run["id"]],
            "name": f"Run {self.at + 1}",
            "title": title,
            "question": question if len(question) > len(title) else "",
            "over": self._over(),
            "inside": self._inside(),
            "status": run["status"],
            "tone": _TONES.get(run["status"], "warn"),
            "facts": self._facts(),
            "reasons": reasons,
            "answer": answer or _calls_of(run["answer"]),
            "short": _short(answer, SNIPPET),
            "long": len(answer) > LONGEST_ANSWER,
            "agreement": self._agreement(),
            "lanes": lanes,
            "ticks": self._ticks() if lanes else [],
            "columns": [self._column(step) for step in run["steps"]],
            "conversation": counted(len(run["messages"]), "message"),
        }

    # -- The head ----------------------------------------------------------------------

    def _over(self) -> str:
        run = self.run
        began = datetime.fromtimestamp(run["began"]).astimezone()
        parts = [run["name"], f"{began:%Y-%m-%d %H:%M:%S}"]
        if len(self.runs) > 1:
            parts.insert(0, f"Run {self.at + 1}")
            if len({other["root"] for other in self.runs}) < len(self.runs):
                around = f" of {run['root_name']}" if run["root_name"] else ""
                parts.insert(1, f"turn {self.turn}{around}")
        if run["responses"]:
            parts.append(f"starts from {counted(len(run['responses']), 'response')}")
        if run["parent"] is not None:
            parts.append("inside")
        return " · ".join(filter(None, parts))

    def _inside(self) -> dict[str, str] | None:
        parent = self.run["parent"]
        if parent is None or parent["run"] not in self.places:
            return None
        place = self.places[parent["run"]]
        anchor = f"{place}-{parent['call']}"
        number = place.removeprefix("r")
        return {"anchor": anchor, "label": f"{parent['call']} of run {number}"}

    def _facts(self) -> list[str]:
        run, calls = self.run, self.run["calls"]
        answered = sum(map(_has_answered, calls))
        facts = [f"{answered} of {counted(len(calls), 'call')} answered"]
        slowest = [self._who(call) for call in self._critical()]
        path = f", critical path {' → '.join(slowest)}" if len(slowest) > 1 else ""
        facts.append(f"{_seconds(_ended(run) - run['began'])}{path}")
        if tokens := _tokens(run):
            facts.append(f"{tokens:,} tokens")
        if (cost := _cost(run)) is not None:
            facts.append(in_dollars(cost))
        return facts

    def _critical(self) -> list[RecordedCall]:
        """Return the last call to end of each step, which the next step waits for."""
        path = []
        for step in self.run["steps"]:
            asked = [c for c in self._calls(step["name"]) if c["asked"] is not None]
            if asked:
                path.append(max(asked, key=lambda call: call["replied"] or 0.0))
        return path

    # -- The pipeline ------------------------------------------------------------------

    def _calls(self, step: str) -> list[RecordedCall]:
        calls = [call for call in self.run["calls"] if call["step"] == step]
        return sorted(calls, key=lambda call: (_index(call), call["attempt"]))

    def _who(self, call: RecordedCall) -> str:
        """Return the name of a call's agent, numbered where its step has several."""
        agents: list[str] = next(
            (s["agents"] for s in self.run["steps"] if s["name"] == call["step"]), []
        )
        name, index = call["agent"], _index(call)
        if call["attempt"] or agents.count(name) < 2:
            return name
        return f"{name} #{agents[: index + 1].count(name)}"

    def _column(self, step: Mapping[str, Any]) -> dict[str, Any]:
        name = step["name"]
        calls = self._calls(name)
        kept = next((k for k in self.run["kept"] if k["step"] == name), None)
        skipped = next(
            (
                row["skipped"]
                for k in self.run["kept"]
                for row in k["rows"]
                if row["name"] == name and "skipped" in row
            ),
            None,
        )
        own = next((r for r in kept["rows"] if r["name"] == name), {}) if kept else {}
        note = own.get("note")
        return {
            "title": name,
            "said": self._said(kept, calls, skipped),
            "idle": not calls and kept is None,
            "dense": len(calls) > DENSE,
            "cards": [self._card(call) for call in calls],
            "left": self._left(kept) if kept and not calls else [],
            "note": "" if note is None or _is_count(note) else _note(note),
        }

    def _said(
        self, kept: Mapping[str, Any] | None, calls: list[RecordedCall], skipped: Any
    ) -> str:
        if skipped is not None:
            return f"skipped: {skipped}"
        if kept is None and not calls:
            return "not reached"
        said = []
        if calls:
            began = min((c["asked"] for c in calls if c["asked"]), default=None)
            if began is not None:
                start = began - self.run["began"]
                end = max(c["replied"] or _ended(self.run) for c in calls)
                said.append(f"{start:.1f} to {_seconds(end - self.run['began'])}")
        if kept is not None:
            given, left = len(kept["given"]), len(kept["responses"])
            if kept["error"]:
                said.append("failed")
            elif given:
                said.append(f"{given} → {counted(left, 'response')}")
            else:
                said.append(counted(left, "response"))
        return " · ".join(said)

    def _left(self, kept: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return links to what a step that asks nobody has kept."""
        names = [response["id"] for response in kept["responses"]]
        return [self._parent(name) for name in names[:MOST_LINKS]]

    def _card(self, call: RecordedCall) -> dict[str, Any]:
        reply = call["reply"] or {}
        tone, state = self._fate(call)
        text = reply.get("text") or _calls_of(call["message"])
        why = reply.get("error") or (
            f"Cut off {reply['cut_off']}" if reply.get("cut_off") else ""
        )
        model = reply.get("model_name") or ""
        at = self.run["calls"].index(call)
        sent = counted(len(call["messages"]), "message")
        return {
            "anchor": self._anchor(call),
            "who": self._who(call) + (" (fallback)" if call["attempt"] else ""),
            "tone": tone,
            "state": state,
            "seconds": _seconds(reply["time"])
            if "time" in reply and call["asked"]
            else "",
            "spent": _spent(reply, call["cost"]),
            "place": self._place(call) if call["asked"] else None,
            "snippet": _short(text or why, SNIPPET),
            "text": text,
            "why": why,
            "model": model if model != call["agent"] else "",
            "parents": [self._parent(name) for name in call["parents"][:MOST_LINKS]],
            "more": max(0, len(call["parents"]) - MOST_LINKS),
            "inner": self._inner(call),
            "sent": f"{sent} sent, and the reply" if call["asked"] else "",
            "at": f"{self.at} {at}",
        }

    def _anchor(self, call: RecordedCall) -> str:
        fallback = f"-{call['attempt']}" if call["attempt"] else ""
        return f"{self.places[self.run['id']]}-{call['call']}{fallback}"

    def _parent(self, response: str) -> dict[str, str]:
        """Return the link to a response: to the attempt that wrote it."""
        written = [c for c in self.run["calls"] if c["call"] == response]
        for call in reversed(written):
            return {"anchor": self._anchor(call), "label": self._who(call)}
        # One of an earlier run, from which this one starts.
        started = (r["agent"] for r in self.run["responses"] if r["id"] == response)
        anchor = self.places[self.run["id"]]
        return {"anchor": anchor, "label": next(started, response)}

    def _inner(self, call: RecordedCall) -> list[dict[str, str]]:
        around = {"run": self.run["id"], "call": call["call"]}
        return [
            {"anchor": place, "label": f"run {place.removeprefix('r')}"}
            for other in self.runs
            if other["parent"] == around
            for place in [self.places[other["id"]]]
        ]

    def _fate(self, call: RecordedCall) -> tuple[str, str]:
        """Return the tone of a call's card, and what became of its response."""
        reply = call["reply"]
        if reply is None:
            return "warn", "not finished"
        if reply["outcome"] != "answered":
            return ("bad" if "fail" in reply["outcome"] else "warn"), reply["outcome"]
        result = self.run["result"]
        if result and call["call"] == result["responses"][0]["id"]:
            return "good", "the answer"
        steps = iter(self.run["kept"])
        own = next((k for k in steps if k["step"] == call["step"]), None)
        if own is None:
            return "", "answered"
        ids = [response["id"] for response in own["responses"]]
        if call["call"] not in ids:
            wrote = any(name.startswith(f"{call['step']}/") for name in ids)
            return ("warn", "dropped") if wrote else ("", "judged")
        for later in steps:
            ids = [response["id"] for response in later["responses"]]
            if not set(ids) & set(later["given"]):
                break  # it wrote its own from them
            if call["call"] not in ids:
                return self._dropped(call, later)
        return "good", "kept"

    def _dropped(self, call: RecordedCall, step: Mapping[str, Any]) -> tuple[str, str]:
        """Return how a step dropped a response; most voters lose none of their vote."""
        notes = [row["note"] for row in step["rows"] if _is_count(row.get("note"))]
        if not notes:
            return "warn", f"dropped by {step['step']}"
        outvoted = call["call"] in notes[0].get("minority", [])
        return ("warn", "outvoted") if outvoted else ("good", "voted for the answer")

    # -- Time --------------------------------------------------------------------------

    def _place(self, call: RecordedCall, kind: str = "") -> dict[str, Any]:
        began, ended = self.run["began"], _ended(self.run)
        whole = max(ended - began, 1e-9)
        start = (call["asked"] or began) - began
        end = (call["replied"] or ended) - began
        left = min(100.0, max(0.0, 100 * start / whole))
        return {
            "kind": kind,
            "left": f"{left:.2f}",
            "width": f"{min(100.0 - left, 100 * max(0.0, end - start) / whole):.2f}",
            "top": None,
            "height": None,
            "said": "",
        }

    def _lanes(self) -> list[dict[str, Any]]:
        critical = [id(call) for call in self._critical()]
        lanes = []
        for step in self.run["steps"]:
            calls = [c for c in self._calls(step["name"]) if c["asked"] is not None]
            if not calls or len(self.run["calls"]) < 2:
                continue
            thick = 10 if len(calls) <= 6 else 5 if len(calls) <= 20 else 2
            gap = 3 if thick > 2 else 1
            places = []
            for row, call in enumerate(calls):
                kind = "critical" if id(call) in critical else ""
                if not _has_answered(call):
                    reply = call["reply"] or {"outcome": "given up"}
                    kind = "failed" if "fail" in reply["outcome"] else "given"
                place = self._place(call, kind)
                took = _seconds(float(place["width"]) / 100 * self._whole())
                place |= {
                    "top": gap + row * (thick + gap),
                    "height": thick,
                    "said": f"{self._who(call)}: {took}",
                }
                places.append(place)
            height = gap + len(calls) * (thick + gap)
            lanes.append({"name": step["name"], "height": height, "places": places})
        return lanes

    def _whole(self) -> float:
        return _ended(self.run) - self.run["began"]

    def _ticks(self) -> list[str]:
        return [_seconds(self._whole() * part / 4) for part in range(5)]

    # -- Agreement ---------------------------------------------------------------------

    def _agreement(self) -> dict[str, Any] | None:
        found: dict[str, Any] = {"analysis": None, "votes": None, "matrix": None}
        found["analysis"] = (self.run["result"] or {}).get("analysis")
        if not found["analysis"]:
            found["votes"] = self._votes()
        if not found["analysis"] and not found["votes"]:
            found["matrix"] = self._matrix()
        return found if any(found.values()) else None

    def _votes(self) -> dict[str, Any] | None:
        for kept in self.run["kept"]:
            for row in kept["rows"]:
                note = row.get("note")
                if _is_count(note) and note.get("counts"):
                    return self._counts(row["name"], note)
                if _is_count(note) and note.get("points"):
                    return self._points(row["name"], note["points"])
        return None

    def _counts(self, step: str, note: Mapping[str, Any]) -> dict[str, Any]:
        counts = sorted(note["counts"].items(), key=lambda item: -item[1])
        total = max(1, sum(number for _, number in counts))
        minority = [self._parent(name)["label"] for name in note.get("minority", [])]
        behind = f"Another answer: {', '.join(minority)}." if minority else ""
        return {
            "said": f"{step}: {counts[0][1]} of {counted(total, 'vote')} for "
            f"{_short(counts[0][0], 60)}",
            "bars": [
                _bar(name, number, number / total, won=rank == 0)
                for rank, (name, number) in enumerate(counts[:20])
            ],
            "behind": behind,
        }

    def _points(self, step: str, points: Mapping[str, Any]) -> dict[str, Any]:
        ranks = sorted(points.items(), key=lambda item: -float(item[1]))
        most = max(1.0, *(abs(float(number)) for _, number in ranks))
        best = self._parent(ranks[0][0])["label"]
        return {
            "said": f"{step}: most points for {best}",
            "bars": [
                _bar(
                    self._parent(name)["label"],
                    number,
                    max(0.0, float(number)) / most,
                    won=rank == 0,
                )
                for rank, (name, number) in enumerate(ranks)
            ],
            "behind": "",
        }

    def _matrix(self) -> dict[str, Any] | None:
        for step in self.run["steps"]:
            calls = [call for call in self._calls(step["name"]) if _has_text(call)]
            if len(calls) > 1:
                return self._alike(step["name"], calls[:MOST_COMPARED])
        return None

    def _alike(self, step: str, calls: Sequence[RecordedCall]) -> dict[str, Any]:
        longest = 100_000 // len(calls) ** 2 * 4 + 1_000  # so that it takes a moment
        texts = [str((call["reply"] or {})["text"])[:longest] for call in calls]
        vectors = vectors_of(texts)
        n = len(calls)
        rows = [[1.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i):
                same = texts[i] == texts[j]
                value = 1.0 if same else similarity(vectors[i], vectors[j])
                rows[i][j] = rows[j][i] = value
        shown = [
            [v if i != j else 0.0 for j, v in enumerate(row)]
            for i, row in enumerate(rows)
        ]
        names = [self._who(call) for call in calls]
        pairs = [(rows[i][j], names[j], names[i]) for i in range(n) for j in range(i)]
        value, one, other = max(pairs, key=lambda pair: pair[0])
        most = f"{one} and {other} are most alike ({value:.2f})."
        if n == 2:
            most = f"{one} and {other} are alike by {value:.2f}."
        least = ""
        if n > 2:
            means = [(sum(row) - 1) / (n - 1) for row in rows]
            alone = means.index(min(means))
            least = f"{names[alone]} stands apart ({means[alone]:.2f} on average)."
        return {
            "n": n,
            "names": names if n <= 24 else [],
            "paths": shaded(shown),
            "numbers": [
                (j + 0.5, i + 0.6, f"{rows[i][j]:.2f}", rows[i][j] > 0.55)
                for i in range(n)
                for j in range(n)
                if i != j and n <= MOST_NUMBERS
            ],
            "said": f"{most} {least}",
            "most": most,
            "least": least,
            "step": step,
        }


def _bar(name: str, number: Any, share: float, *, won: bool) -> dict[str, Any]:
    shown = f"{number:g}" if isinstance(number, int | float) else str(number)
    width = f"{100 * share:.1f}"
    return {"name": _short(name, 60), "number": shown, "share": width, "won": won}


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    parts = [
        part if isinstance(part, str) else part.get("text", "") for part in content
    ]
    return "\n".join(filter(None, parts))


def _calls_of(message: Mapping[str, Any] | None) -> str:
    """Return the tool calls of a message as text."""
    return "\n".join(
        f"{call['name']}({json.dumps(call['args'], ensure_ascii=False)})"
        for call in (message or {}).get("tool_calls", [])
    )


def _short(text: str, most: int) -> str:
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else f"{line[:most].rstrip()}…"


def _is_count(note: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a step's note has votes or points, which the page draws."""
    if not isinstance(note, dict):
        return False
    return isinstance(note.get("counts", note.get("points")), dict)


def _note(note: Any) -> str:
    if isinstance(note, str):
        return note
    return json.dumps(note, ensure_ascii=False, indent=1)


def _index(call: RecordedCall) -> int:
    return int(call["call"].rpartition("/")[2])


def _has_answered(call: RecordedCall) -> bool:
    return (call["reply"] or {}).get("outcome") == "answered"


def _has_text(call: RecordedCall) -> bool:
    return _has_answered(call) and bool((call["reply"] or {})["text"])


def _ended(run: RecordedRun) -> float:
    """Return when a run ended, or when the last was heard of it."""
    if run["ended"] is not None:
        return run["ended"]
    times = [t for call in run["calls"] for t in (call["asked"], call["replied"]) if t]
    return max([run["began"], *times])


def _seconds(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def _tokens(run: RecordedRun) -> int:
    return sum(_read(call) + _written(call) for call in _replies(run["calls"]))


def _replies(calls: Iterable[RecordedCall]) -> list[dict[str, Any]]:
    return [call["reply"] for call in calls if call["reply"] is not None]


def _read(reply: Mapping[str, Any]) -> int:
    return int(reply.get("in_tokens", 0))


def _written(reply: Mapping[str, Any]) -> int:
    return int(reply.get("out_tokens", 0))


def _spent(reply: Mapping[str, Any], cost: float | None) -> str:
    parts = []
    if _read(reply) or _written(reply):
        parts.append(f"{_read(reply):,} → {_written(reply):,} tokens")
    elif reply.get("estimated_tokens"):
        parts.append(f"about {reply['estimated_tokens']:,} tokens")
    if reply.get("cached"):
        parts.append("cached")
    if cost is not None:
        parts.append(in_dollars(cost))
    return " · ".join(parts)


def _cost(run: RecordedRun) -> float | None:
    """Return what a run cost, by the prices of the recording, or else of the run."""
    costs = [call["cost"] for call in run["calls"] if call["cost"] is not None]
    if costs:
        return sum(costs)
    cost = (run["result"] or {}).get("cost") or {}
    total: float | None = cost.get("total")
    return total
