"""The first process's side of the line: puts together what all have sent, and decides whether the run is over."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from jaxcnn.errors import EXIT_INTERNAL, EXIT_INTERRUPTED
from jaxcnn.processes.wire import (
    GRACE_SECONDS,
    SAVING_SECONDS,
    Process,
    Pulse,
    Verdict,
    Wire,
    ended,
    silence_of,
    stood_still,
)


class Hub:
    """What the first process knows of all: calls that are not complete, who has left, who was heard of when."""

    def __init__(self, wires: dict[int, Wire], table: tuple[Process, ...], patience: float):
        self._wires, self._table, self._patience = wires, table, patience
        self._lock = threading.RLock()
        self._calls: dict[int, dict[int, dict[str, Any]]] = {}
        self._left: dict[int, Verdict] = {}
        self._left_at = 0.0
        self._pulse = Pulse(patience / 2)
        self._heard = dict.fromkeys(wires, time.monotonic())
        self._open = set(wires)
        self._over = False
        self.deliver: Callable[[dict[str, Any]], None] = lambda message: None

    def begin(self) -> None:
        for index, wire in self._wires.items():
            threading.Thread(target=self._read, args=(index, wire), daemon=True).start()

    def _read(self, index: int, wire: Wire) -> None:
        while (message := wire.receive()) is not None:
            self.receive(index, message)
        with self._lock:
            self._open.discard(index)
            if index in self._left:
                return
            if still := self._pulse.stood_still():
                self._decide(Verdict(0, stood_still(self._table[0], still), EXIT_INTERRUPTED))
            else:
                self._decide(Verdict(index, f"{self._table[index]} has died", EXIT_INTERRUPTED))

    def receive(self, index: int, message: dict[str, Any]) -> None:
        with self._lock:
            self._heard[index] = time.monotonic()
            if "call" in message:
                calls = self._calls.setdefault(message["call"], {})
                calls[index] = message
                self._check_nobody_waits_for_who_left()
                if len(calls) == len(self._table):
                    self._send_all(_answer(self._calls.pop(message["call"])))
            elif "left" in message:
                self._left_at = self._left_at if any(one.code for one in self._left.values()) else time.monotonic()
                self._left[index] = Verdict(index, message["line"], message["left"])
                self._check_nobody_waits_for_who_left()
                if "now" in message:
                    self._decide(Verdict(index, ended(self._table[index], message["line"]), message["left"]))
                elif len(self._left) == len(self._table):
                    self._all_left()

    def _check_nobody_waits_for_who_left(self) -> None:
        """A call that never ends is a mistake of ours, and must not look like a slow step."""
        done = [index for index, one in self._left.items() if one.code == 0]
        for calls in self._calls.values():
            for index in (index for index in done if index not in calls):
                (waiting, call), *_ = calls.items()
                line = f"{self._table[index]} has ended, and process {waiting} waits for it at {call['name']!r}"
                self._decide(Verdict(index, line, EXIT_INTERNAL))

    def _all_left(self) -> None:
        """All have left; they have the same exit code, or those that failed tell the others."""
        if len({one.code for one in self._left.values()}) > 1:
            self._decide_by_left()
        elif not self._over:
            self._over = True
            self._send_all({"all_left": self._left[0].line})

    def _decide_by_left(self) -> None:
        first = next(one for one in self._left.values() if one.code)
        self._decide(Verdict(first.index, ended(self._table[first.index], first.line), first.code))

    def watch(self) -> None:
        """Called every half second or so: who is silent, and who fails alone."""
        now = time.monotonic()
        with self._lock:
            if self._pulse.beat():  # this process stood still itself: what it has not heard says nothing
                self._heard = dict.fromkeys(self._heard, now)
            silent = [index for index in self._open - self._left.keys() if now - self._heard[index] > self._patience]
            if silent:
                line = silence_of(self._table[silent[0]], self._patience)
                self._decide(Verdict(silent[0], line, EXIT_INTERRUPTED))
            codes = {one.code for one in self._left.values()} - {0}
            grace = SAVING_SECONDS if codes == {EXIT_INTERRUPTED} else GRACE_SECONDS
            if codes and not self._over and now - self._left_at > grace:
                self._decide_by_left()

    def _decide(self, verdict: Verdict) -> None:
        if not self._over:  # the first death counts: those that end because of it are not named
            self._over = True
            self._send_all({"verdict": asdict(verdict)})

    def _send_all(self, message: dict[str, Any]) -> None:
        for wire in self._wires.values():
            wire.send(message)
        self.deliver(message)

    def beat(self) -> None:
        for wire in self._wires.values():
            wire.send({"beat": 1})

    def wait_for_others(self, seconds: float, but: int = 0) -> None:
        """Waits until the others (`but` one) have closed their connections: they hear the verdict from this process."""
        deadline = time.monotonic() + seconds
        while self._open - {but} and time.monotonic() < deadline:
            time.sleep(0.05)


def _answer(calls: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What all are told once all have called: the first's value, whether any flag is up, all values if asked for."""
    first = calls[0]
    answer = {"answer": first["call"], "value": first["value"], "any": any(one["flag"] for one in calls.values())}
    if first["gather"]:
        answer["value"] = [calls[index]["value"] for index in range(len(calls))]
    names = {one["name"]: index for index, one in sorted(calls.items(), reverse=True)}
    if len(names) > 1:
        answer["mismatch"] = ", ".join(f"process {index} at {name!r}" for name, index in sorted(names.items()))
    return answer
