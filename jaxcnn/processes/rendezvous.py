"""How the processes of a run find each other: the first listens on the coordinator's address, the others come to it."""

import contextlib
import os
import select
import socket
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from jaxcnn.errors import InputError, RunFailed
from jaxcnn.processes.wire import Process, Wire

_HELLO_SECONDS = 5.0


@dataclass(frozen=True)
class Place:
    """Where the first process is, how many come, and which of them this one is."""

    address: str
    """HOST:PORT."""
    num_processes: int
    index: int

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@dataclass(frozen=True)
class Meeting:
    """What a process knows once all have come."""

    table: tuple[Process, ...]
    runtime_port: int
    """Where JAX's coordination service listens, on the first process's host."""
    wires: dict[int, Wire]
    """Of the first process: to each other one; of another: to the first."""


def check_address(address: str, origin: str) -> None:
    """Raises InputError unless the address is HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{origin} {address!r}: it must be HOST:PORT, the first process's host and a free port there")


def meet(place: Place, timeout: float, bind_address: str | None = None) -> Meeting:
    """Returns the table of all processes once all have come.

    Raises:
      InputError: two processes have one number, or they disagree on how many there are; the port is taken.
      RunFailed: not all came, or the first could not be reached, within `timeout` seconds.
    """
    this = Process(place.index, socket.gethostname(), os.getpid())
    if place.index == 0:
        return _Door(place, this, timeout, bind_address).wait()
    return _go_to(place, this, timeout)


class _Door:
    def __init__(self, place: Place, this: Process, timeout: float, bind_address: str | None):
        self._place, self._this, self._timeout = place, this, timeout
        try:
            self._server = _listen(place.port, bind_address)
        except OSError as error:
            raise InputError(
                f"process 0 cannot listen on port {place.port} of {this.host}: {error.strerror}; "
                "another process 0, or another job, may be there: choose another port"
            ) from None
        self._wires: dict[int, Wire] = {}
        self._table = {0: this}

    def wait(self) -> Meeting:
        deadline = time.monotonic() + self._timeout
        while len(self._table) < self._place.num_processes:
            if not select.select([self._server], [], [], min(0.5, max(0.0, deadline - time.monotonic())))[0]:
                if time.monotonic() > deadline:
                    self._give_up()
                continue
            self._admit(self._server.accept()[0])
        runtime_port = _free_port()
        table = tuple(self._table[index] for index in range(len(self._table)))
        for wire in self._wires.values():
            wire.send({"welcome": [asdict(process) for process in table], "runtime_port": runtime_port})
        threading.Thread(target=self._refuse_late, daemon=True).start()
        return Meeting(table, runtime_port, self._wires)

    def _admit(self, connection: socket.socket) -> None:
        """Lets in a process that says who it is; anything else that knocks is left standing."""
        wire, hello = _hear(connection)
        if hello is None:
            return
        other = Process(hello["hello"], hello["host"], hello["pid"])
        if hello["of"] != self._place.num_processes:
            self._refuse_all(
                wire, f"{other} was told of {hello['of']} processes, {self._this} of {self._place.num_processes}"
            )
        known = self._table.get(other.index)
        if known is not None and (other.index == 0 or self._wires[other.index].is_open()):
            self._refuse_all(
                wire,
                f"two processes have the number {other.index}: {known}, and pid {other.pid} on "
                f"{other.host}; each needs its own --process-id",
            )
        self._table[other.index], self._wires[other.index] = other, wire

    def _give_up(self) -> None:
        missing = [str(index) for index in range(self._place.num_processes) if index not in self._table]
        shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        line = (
            f"{len(missing)} of {self._place.num_processes} processes have not come to {self._place.address} within "
            f"{self._timeout:.0f} s: {shown}"
        )
        self._tell(line, "RunFailed")
        raise RunFailed(line)

    def _refuse_all(self, wire: Wire, line: str) -> None:
        wire.send({"refused": line, "kind": "InputError"})
        self._tell(line, "InputError")
        raise InputError(line)

    def _tell(self, line: str, kind: str) -> None:
        for wire in self._wires.values():
            wire.send({"refused": line, "kind": kind})

    def _refuse_late(self) -> None:
        """Tells who comes after the start: a process that a scheduler starts again alone, or one too many."""
        while True:
            wire, hello = _hear(self._server.accept()[0])
            if hello is not None:
                line = f"the run at {self._place.address} has begun already, with {self._table.get(hello['hello'])}"
                wire.send({"refused": f"{line}; all processes start together", "kind": "RunFailed"})
                wire.close()


def _hear(connection: socket.socket) -> tuple[Wire, dict[str, Any] | None]:
    connection.settimeout(_HELLO_SECONDS)
    wire = Wire(connection)
    hello = wire.receive()
    known = hello is not None and all(isinstance(hello.get(name), int) for name in ("hello", "of", "pid"))
    if not known:
        wire.close()
        return wire, None
    connection.settimeout(None)
    return wire, hello


def _go_to(place: Place, this: Process, timeout: float) -> Meeting:
    deadline = time.monotonic() + timeout
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((place.host, place.port), timeout=min(left, 10.0))
        except OSError as error:
            reason = error.strerror or str(error) or "no answer"
            time.sleep(0.3)
            continue
        wire = Wire(connection)
        wire.send({"hello": this.index, "of": place.num_processes, "host": this.host, "pid": this.pid})
        connection.settimeout(max(left, 1.0) + 10.0)  # the first process says itself who has not come
        answer = wire.receive()
        if answer is not None and "welcome" in answer:
            connection.settimeout(None)
            table = tuple(Process(**process) for process in answer["welcome"])
            return Meeting(table, answer["runtime_port"], {0: wire})
        if answer is not None and "refused" in answer:
            raise (InputError if answer["kind"] == "InputError" else RunFailed)(answer["refused"])
        wire.close()
        reason = "something else answers there, or the first process has ended"
        time.sleep(0.3)
    raise RunFailed(
        f"{this} cannot reach the first process at {place.address} for {timeout:.0f} s: {reason}; is that the host "
        "of process 0, has it started, and is the port open?"
    )


def _listen(port: int, bind_address: str | None) -> socket.socket:
    """A server on all of the machine's addresses, or on the one given as HOST:PORT."""
    if bind_address is not None:
        host, _, own_port = bind_address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(own_port)), family=family, backlog=512)
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # a kernel may know IPv6 and have it switched off
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
    return socket.create_server(("", port), backlog=512)


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]
