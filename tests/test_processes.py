"""Several processes: how they find each other, agree, and end. Most run in threads; those that must die are real."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from jaxcnn import processes
from jaxcnn.errors import EXIT_INPUT, EXIT_INTERNAL, EXIT_INTERRUPTED, InputError, RunFailed
from jaxcnn.processes.hub import Hub
from jaxcnn.processes.joining import detect, is_of_a_collective
from jaxcnn.processes.rendezvous import Place, meet
from jaxcnn.processes.wire import Process, Pulse, Wire
from tests.processes import ROOT, Ended, free_port, start_together

PROGRAM = str(ROOT / "tests" / "process_program.py")


# How a process is told of the others


def launch(*arguments: str) -> processes.Launch:
    parser = argparse.ArgumentParser()
    processes.add_options(parser)
    return processes.launch_of(parser.parse_args(arguments))


def test_without_options_a_process_is_alone() -> None:
    assert launch().is_alone


def test_the_coordinator_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "node1:1234")
    assert launch("--num-processes", "2", "--process-id", "1") == processes.Launch(False, "node1:1234", 2, 1)
    assert launch().is_alone, "the address alone asks for nothing"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--coordinator a:1", "--num-processes N, --process-id I missing"),
        ("--num-processes 2 --process-id 0", "--coordinator HOST:PORT missing"),
        ("--process-id 0", "--coordinator HOST:PORT, --num-processes N missing"),
        ("--coordinator a --num-processes 2 --process-id 0", "must be HOST:PORT"),
        ("--coordinator a:99999 --num-processes 2 --process-id 0", "must be HOST:PORT"),
        ("--coordinator a:1 --num-processes 2 --process-id 2", "from 0 to N - 1"),
        ("--coordinator a:1 --num-processes 2 --process-id -1", "from 0 to N - 1"),
        ("--coordinator a:1 --num-processes 0 --process-id 0", "at least 1"),
        ("--distributed --start-timeout 0", "above 0"),
    ],
)
def test_options_that_say_too_little_are_refused(arguments: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        launch(*arguments.split())


CLUSTERS = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_WORKER", "JAX_COORDINATOR_ADDRESS", "JAX_LOCAL_DEVICE_IDS")


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(CLUSTERS):
            monkeypatch.delenv(name)
    return monkeypatch


def slurm(monkeypatch: pytest.MonkeyPatch, tasks_per_node: str) -> None:
    values = {
        "JOB_ID": "70001", "STEP_NODELIST": "gpu[07-09]", "NTASKS": "6", "PROCID": "3", "LOCALID": "1",
        "STEP_TASKS_PER_NODE": tasks_per_node, "STEP_NUM_TASKS": "6",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_slurm_says_number_place_and_device_of_a_task(no_cluster: pytest.MonkeyPatch) -> None:
    slurm(no_cluster, "2(x3)")
    found = detect(None, None, None)
    assert found.place == Place(f"gpu07:{70001 % 4096 + 61440}", 6, 3)  # the port as JAX documents it
    assert found.local_devices == (1,)


def test_one_task_a_host_has_all_of_its_devices(no_cluster: pytest.MonkeyPatch) -> None:
    slurm(no_cluster, "1(x6)")
    assert detect(None, None, None).local_devices is None
    no_cluster.setenv("JAX_LOCAL_DEVICE_IDS", "0,2")
    assert detect(None, None, None).local_devices == (0, 2), "unless one says otherwise"


def test_where_no_cluster_is_found_the_flags_are_named(no_cluster: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"neither SLURM.*--coordinator HOST:PORT --num-processes N --process-id I"):
        detect(None, None, None)


def test_kubernetes_without_its_package_is_told_with_the_command(no_cluster: pytest.MonkeyPatch) -> None:
    no_cluster.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    no_cluster.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jax\[k8s\]"'):
        detect(None, None, None)


def test_tasks_that_would_each_train_alone_are_warned(no_cluster: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    no_cluster.setattr("logging.Logger.warning", lambda self, text: said.append(text))
    slurm(no_cluster, "2(x3)")
    processes.start(processes.Launch())
    assert not said, "one of them says it"
    no_cluster.setenv("SLURM_PROCID", "0")
    processes.start(processes.Launch())
    assert len(said) == 1
    assert "SLURM_STEP_NUM_TASKS=6" in said[0]
    assert "--distributed" in said[0]


# How they meet


def meet_all(places: list[Place], timeout: float = 5.0) -> list[Any]:
    """What each of several processes has of the meeting: itself, or its error."""
    results: list[Any] = [None] * len(places)

    def one(number: int) -> None:
        try:
            results[number] = meet(places[number], timeout)
        except (InputError, RunFailed) as error:
            results[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def places(*indices: int, of: int) -> list[Place]:
    address = f"localhost:{free_port()}"
    return [Place(address, of, index) for index in indices]


def test_all_have_the_same_table_whatever_the_order_they_come_in() -> None:
    meetings = meet_all(places(2, 1, 0, of=3))
    assert len({meeting.table for meeting in meetings}) == 1
    assert [process.index for process in meetings[0].table] == [0, 1, 2]
    assert {process.host for process in meetings[0].table} == {socket.gethostname()}
    assert [sorted(meeting.wires) for meeting in meetings] == [[0], [0], [1, 2]]


def test_two_processes_with_one_number_are_told_both() -> None:
    first, *others = meet_all(places(0, 1, 1, of=3))
    for error in (first, *others):
        assert isinstance(error, InputError)
        assert "two processes have the number 1" in str(error)
        assert f"pid {os.getpid()}" in str(error)


def test_processes_that_disagree_how_many_there_are_are_told() -> None:
    address = f"localhost:{free_port()}"
    for error in meet_all([Place(address, 2, 0), Place(address, 3, 1)]):
        assert isinstance(error, InputError)
        assert "process 1" in str(error)
        assert "was told of 3 processes" in str(error)


def test_who_has_not_come_is_named_to_all_who_have() -> None:
    begun = time.monotonic()
    for error in meet_all(places(0, 2, of=4), timeout=1.0):
        assert isinstance(error, RunFailed)
        assert "2 of 4 processes have not come" in str(error)
        assert str(error).endswith("within 1 s: 1, 3")
    assert time.monotonic() - begun < 3


def test_a_first_process_that_is_not_there_is_named_with_its_address() -> None:
    place = places(1, of=2)[0]
    with pytest.raises(RunFailed, match=rf"cannot reach the first process at {place.address} for 1 s: Connection ref"):
        meet(place, 1.0)


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("", 0)) as server:
        place = Place(f"localhost:{server.getsockname()[1]}", 2, 0)
        with pytest.raises(InputError, match=f"cannot listen on port {place.port}.*choose another port"):
            meet(place, 1.0)


def test_what_is_no_process_of_ours_does_not_disturb_the_meeting() -> None:
    first, second = places(0, 1, of=2)

    def knock() -> None:
        time.sleep(0.3)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"hello": "x"}\n', b""):
            with socket.create_connection(("localhost", first.port)) as stranger:
                stranger.sendall(words)

    threading.Thread(target=knock).start()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(meet(first, 10.0)))
    thread.start()
    time.sleep(0.6)
    assert len(meet(second, 10.0).table) == 2
    thread.join()
    assert len(results[0].table) == 2


def test_a_process_that_comes_after_the_start_is_sent_away() -> None:
    both = places(0, 1, of=2)
    meet_all(both)
    with pytest.raises(RunFailed, match=r"has begun already, with process 1 on .*start together"):
        meet(both[1], 5.0)


# What the first process decides


TABLE = tuple(Process(index, f"node{index}", 100 + index) for index in range(3))


class Others:
    """A hub of three processes with the far ends of two wires in hand."""

    def __init__(self, patience: float = 30.0):
        pairs = {index: socket.socketpair(socket.AF_UNIX) for index in (1, 2)}
        self.far = {index: pair[1] for index, pair in pairs.items()}
        self.hub = Hub({index: wire_of(pair[0]) for index, pair in pairs.items()}, TABLE, patience)
        self.heard: list[dict[str, Any]] = []
        self.hub.deliver = self.heard.append
        self.hub.begin()

    def verdicts(self) -> list[dict[str, Any]]:
        return [message["verdict"] for message in self.heard if "verdict" in message]


def wire_of(connection: socket.socket) -> Wire:
    class Local:
        """A socket of this machine has no delay to switch off."""

        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        def setsockopt(self, *arguments: Any) -> None: ...

    return Wire(Local())  # type: ignore[arg-type]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def call(number: int, value: Any, *, flag: bool = False, name: str = "steps") -> dict[str, Any]:
    return {"call": number, "name": name, "value": value, "flag": flag, "gather": False}


def test_an_answer_comes_when_all_have_called_with_the_firsts_value_and_any_flag() -> None:
    others = Others()
    others.hub.receive(1, call(1, 8))
    others.hub.receive(1, call(2, 8))
    others.hub.receive(0, call(1, 5))
    assert not others.heard
    others.hub.receive(2, call(1, 9, flag=True))
    assert others.heard == [{"answer": 1, "value": 5, "any": True}]
    others.hub.receive(0, call(2, 6))
    others.hub.receive(2, call(2, 9))
    assert others.heard[1:] == [{"answer": 2, "value": 6, "any": False}]
    assert not others.hub._calls, "nothing is kept of what is answered"


def test_different_calls_at_one_time_are_told_as_such() -> None:
    others = Others()
    for index, name in enumerate(("save", "save", "evaluate")):
        others.hub.receive(index, call(1, None, name=name))
    assert others.heard[0]["mismatch"] == "process 2 at 'evaluate', process 0 at 'save'"


def test_the_first_death_counts_and_those_that_follow_it_are_not_named() -> None:
    others = Others()
    others.far[2].close()
    wait_until(others.verdicts)
    others.far[1].close()
    time.sleep(0.1)
    assert others.verdicts() == [
        {"index": 2, "line": "process 2 on node2 (pid 102) has died", "code": EXIT_INTERRUPTED}
    ]


def test_silence_is_death_after_the_patience_but_not_while_this_process_stood_still() -> None:
    others = Others(patience=0.6)
    time.sleep(0.5)  # longer than half the patience: as if stopped
    others.hub.watch()
    for _ in range(5):
        time.sleep(0.1)
        others.hub.receive(1, {"beat": 1})
        others.hub.watch()
    assert not others.verdicts(), "0.9 s without a beat of process 2, of which it saw but 0.5"
    for _ in range(3):
        time.sleep(0.1)
        others.hub.receive(1, {"beat": 1})
        others.hub.watch()
    assert [verdict["index"] for verdict in others.verdicts()] == [2]
    assert "has not answered for 1 s" in others.verdicts()[0]["line"]


def test_processes_that_leave_together_part_in_peace() -> None:
    others = Others()
    for index in range(3):
        others.hub.receive(index, {"left": 2, "line": f"line {index}"})
    others.far[1].close()
    time.sleep(0.1)
    others.hub.watch()
    assert others.heard == [{"all_left": "line 0"}]


def test_one_that_says_it_ends_at_this_moment_ends_all_with_its_line() -> None:
    others = Others()
    others.hub.receive(2, {"left": EXIT_INTERRUPTED, "line": "interrupted before the first step", "now": True})
    line = "process 2 on node2 (pid 102) has ended: interrupted before the first step"
    assert others.verdicts() == [{"index": 2, "line": line, "code": EXIT_INTERRUPTED}]


def test_one_that_fails_at_its_end_gives_the_others_its_code() -> None:
    others = Others()
    for index, code in ((1, 0), (2, 0), (0, 1)):
        others.hub.receive(index, {"left": code, "line": "disk full"})
    assert others.verdicts() == [
        {"index": 0, "line": "process 0 on node0 (pid 100) has ended: disk full", "code": EXIT_INTERNAL}
    ]


def test_waiting_for_a_process_that_has_ended_is_told_as_a_mistake() -> None:
    others = Others()
    others.hub.receive(1, {"left": 0, "line": ""})
    others.hub.receive(2, call(1, None, name="save"))
    assert "process 1 on node1 (pid 101) has ended, and process 2 waits for it at 'save'" in str(others.verdicts())


def test_a_pulse_knows_how_long_it_stood_still() -> None:
    pulse = Pulse(0.2)
    assert not pulse.beat()
    assert pulse.stood_still() == 0.0
    time.sleep(0.3)
    assert pulse.stood_still() == pytest.approx(0.3, abs=0.1)
    assert pulse.beat()
    assert pulse.stood_still() == pytest.approx(0.3, abs=0.1)


def test_the_loss_of_a_process_is_told_from_its_own_faults() -> None:
    import jax

    lost = "UNKNOWN: Gloo all-reduce failed: [external/gloo/...] Read error [127.0.0.1]:26838: Connection reset by peer"
    assert is_of_a_collective(ValueError(lost))
    assert is_of_a_collective(jax.errors.JaxRuntimeError("INTERNAL: NCCL operation failed"))
    outer = RuntimeError("the step failed")
    outer.__cause__ = ValueError(lost)
    assert is_of_a_collective(outer)
    assert not is_of_a_collective(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
    assert not is_of_a_collective(KeyError("x"))


# One process


def test_many_processes_are_told_in_a_short_line() -> None:
    many = tuple(Process(index, f"node{index // 8:02d}", index, 1) for index in range(256))
    assert processes.described(many) == "256 processes on 32 hosts, 256 devices: node00, node01, node02 ... node31"
    few = (Process(0, "a", 7, 4), Process(1, "a", 8, 4))
    assert processes.described(few) == "2 processes on 1 host, 8 devices: 0 on a (pid 7, 4), 1 on a (pid 8, 4)"


def test_one_process_needs_neither_jax_nor_others() -> None:
    code = (
        "import sys; from jaxcnn import processes as p\n"
        "with p.joined(p.Launch(coordinator='nowhere:1', num_processes=1, process_id=0)):\n"
        "    p.advise('x'); p.barrier('y')\n"
        "    assert p.agree(3) == 3 and p.agree_on_steps(2, True) == (2, True) and p.first_does(lambda: 4) == 4\n"
        "    print(p.index(), p.count(), p.is_first(), p.table(), 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout == "0 1 True () False\n"


# Real processes


def run_to_the_end(part: str, count: int, *, devices: int = 1) -> list[Ended]:
    with start_together([PROGRAM, part], count, devices=devices) as group:
        return [end for end in group.ended() if end is not None]


def check_agreeing(ends: list[Ended], devices: int) -> None:
    count = len(ends)
    assert [end.code for end in ends] == [0] * count, [end.err for end in ends]
    reports = [json.loads(end.out) for end in ends]  # nothing else is on standard output, not what gloo prints
    assert [report["index"] for report in reports] == list(range(count))
    pids = reports[0]["table"]
    for index, report in enumerate(reports):
        assert report["count"] == count
        assert report["first"] == report["first_afterwards"] == (index == 0)
        assert report["table"] == pids
        assert [row[:2] + row[3:] for row in pids] == [[i, socket.gethostname(), devices] for i in range(count)]
        assert report["agreed"] == {"of": 0}
        assert report["stops"] == [[10, False], [10, True], [10, False]], "process 1 alone asked to stop"
        assert report["result"] == {"folder": "by 0"}
        assert report["actions"] == (index == 0)
        kinds = ("InputError", "RunFailed", "Interrupted")
        assert report["raised"] == [[kind, "a line", index > 0] for kind in kinds]
        assert report["sum"] == devices * count * (count + 1) / 2
        assert report["devices"] == devices * count
        assert report["milliseconds"] < 20
    assert [line for line in ends[0].lines if "processes on 1 host" in line], ends[0].err
    assert not [line for end in ends[1:] for line in end.lines], "only the first tells"


def check_named(end: Ended, dead: int, words: str, code: int) -> None:
    """One line that names the dead one, and the exit code."""
    told = [line for line in end.lines if "processes on 1 host" not in line]
    assert len(told) == 1, end.err
    assert told[0].startswith(f"process {dead} on {socket.gethostname()} (pid "), told
    assert words in told[0]
    assert ("--resume auto" in told[0]) == (code == EXIT_INTERRUPTED)
    assert end.code == code


def test_two_processes_agree_sum_and_part() -> None:
    check_agreeing(run_to_the_end("agreeing", 2, devices=2), devices=2)


def killed(count: int, victim: int, number: int = signal.SIGKILL, part: str = "working") -> list[Ended]:
    """What the others have left after a signal to one of them."""
    with start_together([PROGRAM, part], count) as group:
        group.wait_for("works")
        time.sleep(0.3)
        group.signal(victim, number)
        return [end for end in group.ended(but=[victim]) if end is not None]


def test_a_killed_process_is_named_by_the_other_which_ends() -> None:
    (end,) = killed(2, 1)
    check_named(end, 1, "has died", EXIT_INTERRUPTED)
    assert end.seconds < 5


@pytest.mark.slow
def test_four_processes_agree_sum_and_part() -> None:
    check_agreeing(run_to_the_end("agreeing", 4), devices=1)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim"), [(2, 0), (4, 2), (4, 0)])
def test_a_killed_process_is_named_by_all_others(count: int, victim: int) -> None:
    for end in killed(count, victim):
        check_named(end, victim, "has died", EXIT_INTERRUPTED)
        assert end.seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_a_stopped_process_is_named_by_all_others_after_the_patience(victim: int) -> None:
    for end in killed(4, victim, signal.SIGSTOP):
        check_named(end, victim, "has not answered for 6 s", EXIT_INTERRUPTED)
        assert 4 < end.seconds < 12


@pytest.mark.slow
def test_a_process_that_goes_on_after_it_was_given_up_says_so() -> None:
    with start_together([PROGRAM, "working"], 2) as group:
        group.wait_for("works")
        group.signal(0, signal.SIGSTOP)
        group.ended(but=[0])
        group.signal(0, signal.SIGCONT)
        end = group.ended()[0]
    assert end is not None
    assert end.code == EXIT_INTERRUPTED
    assert "the other processes have ended without this one: process 0" in end.lines[-1]


@pytest.mark.slow
def test_a_forked_reader_does_not_hide_the_death_of_its_process() -> None:
    (end,) = killed(2, 1, part="with_a_reader")
    check_named(end, 1, "has died", EXIT_INTERRUPTED)
    assert end.seconds < 5


@pytest.mark.slow
def test_a_bug_in_one_process_ends_the_others_with_its_name() -> None:
    ends = run_to_the_end("bug_in_one", 3)
    assert ends[1].code == EXIT_INTERNAL
    assert "KeyError: 'x'" in ends[1].lines[-1]
    for end in (ends[0], ends[2]):
        check_named(end, 1, "has ended: KeyError: 'x'", EXIT_INTERNAL)


@pytest.mark.slow
def test_a_mistake_in_one_process_gives_all_its_exit_code() -> None:
    ends = run_to_the_end("mistake_in_one", 2)
    assert (ends[1].code, ends[1].lines[-1]) == (EXIT_INPUT, "error: a wrong file")
    check_named(ends[0], 1, "has ended: a wrong file", EXIT_INPUT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "line", "code"),
    [
        ("mistake_in_all", "error: a wrong field", EXIT_INPUT),
        ("interrupted", "saved at step 2", EXIT_INTERRUPTED),
    ],
)
def test_what_ends_all_is_told_by_the_first_alone(part: str, line: str, code: int) -> None:
    ends = run_to_the_end(part, 3)
    assert [end.code for end in ends] == [code] * 3
    assert ends[0].lines[-1] == line
    assert not ends[1].lines + ends[2].lines


@pytest.mark.slow
def test_an_interruption_heard_by_one_process_while_another_compiles_ends_both() -> None:
    with start_together([PROGRAM, "compiling"], 2) as group:
        group.wait_for("compiles")
        time.sleep(0.5)
        group.signal(1, signal.SIGTERM)
        first, second = (end for end in group.ended() if end is not None)
    assert (second.code, second.lines) == (EXIT_INTERRUPTED, ["nothing to save"])
    check_named(first, 1, "has ended: nothing to save", EXIT_INTERRUPTED)
    assert first.seconds < 6


@pytest.mark.slow
def test_a_process_that_ends_while_another_waits_for_it_does_not_hang_the_run() -> None:
    ends = run_to_the_end("one_ends_early", 2)
    assert [end.code for end in ends] == [EXIT_INTERNAL, EXIT_INTERNAL]
    assert "process 0 waits for it at 'what only one asks'" in ends[0].lines[-1]
