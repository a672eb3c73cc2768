"""What tests run in several processes: PART and the options that `tests.processes.start_together` adds."""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
import warnings
from typing import Any

from jaxcnn import processes, runtime
from jaxcnn.cli import guarded
from jaxcnn.errors import InputError, Interrupted, RunFailed
from jaxcnn.interruption import StopRequest

PATIENCE_SECONDS = 6.0
STOP = StopRequest()


def main() -> int:
    runtime.set_up_logging()
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    processes.add_options(parser)
    options = parser.parse_args()
    with STOP, processes.joined(processes.launch_of(options), patience=PATIENCE_SECONDS):
        processes.advise("start again with --resume auto")
        result = PARTS[options.part]()
    print(json.dumps({**result, "first_afterwards": processes.is_first()}))
    return 0


def agreeing() -> dict[str, Any]:
    """All that the processes do together, without an end before its time."""
    import jax

    own = processes.index()
    stops = [processes.agree_on_steps(10 + own, stop=own == 1 and turn == 1) for turn in range(3)]
    begun = time.perf_counter()
    for _ in range(200):
        processes.agree_on_steps(1, False)
    milliseconds = (time.perf_counter() - begun) * 1000 / 200
    actions: list[int] = []
    result = processes.first_does(lambda: actions.append(1) or {"folder": f"by {own}"})
    raised = []
    for kind in (InputError, RunFailed, Interrupted):
        try:
            processes.first_does(lambda kind=kind: fail(kind("a line")))
        except (InputError, RunFailed, Interrupted) as error:
            raised.append([type(error).__name__, str(error), processes.told_by_first(error)])
    processes.barrier("summing")
    return {
        "index": own,
        "count": processes.count(),
        "first": processes.is_first(),
        "table": [[process.index, process.host, process.pid, process.devices] for process in processes.table()],
        "agreed": processes.agree({"of": own}),
        "stops": stops,
        "result": result,
        "actions": len(actions),
        "raised": raised,
        "sum": sum_over_all(float(own + 1)),
        "devices": jax.device_count(),
        "milliseconds": milliseconds,
    }


def fail(error: Exception) -> None:
    raise error


def sum_over_all(value: float) -> float:
    """The sum of a number over all devices of all processes, by a collective."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("data",))
    divided = NamedSharding(mesh, PartitionSpec("data"))
    own = np.full(jax.local_device_count(), value, np.float32)
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return float(total(jax.make_array_from_process_local_data(divided, own)))


def working(at_step: Any = lambda step: None) -> dict[str, Any]:
    """Collectives for a minute, as training has them."""
    deadline = time.monotonic() + 60
    sum_over_all(1.0)
    print("works", flush=True)
    step = 0
    while not processes.agree_on_steps(1, time.monotonic() > deadline)[1]:
        sum_over_all(1.0)
        step += 1
        at_step(step)
    return {}


def with_a_reader() -> dict[str, Any]:
    """The same with a forked child that outlives its parent for a while, as readers of data do."""
    warnings.simplefilter("ignore")  # of forks beside threads
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(15)
        os._exit(0)
    return working()


def bug_in_one() -> dict[str, Any]:
    return working(lambda step: fail(KeyError("x")) if processes.index() == 1 and step == 2 else None)


def mistake_in_one() -> dict[str, Any]:
    return working(lambda step: fail(InputError("a wrong file")) if processes.index() == 1 and step == 2 else None)


def mistake_in_all() -> dict[str, Any]:
    return working(lambda step: fail(InputError("a wrong field")) if step == 2 else None)


def interrupted() -> dict[str, Any]:
    return working(lambda step: fail(Interrupted("saved at step 2")) if step == 2 else None)


def compiling() -> dict[str, Any]:
    """As in the compiler: the main thread does not come to the handlers of signals, nor to anything else."""
    signal.siginterrupt(signal.SIGTERM, False)
    never, _ = os.pipe()
    with STOP.anywhere(lambda: "nothing to save", at_once=True):
        print("compiles", flush=True)
        ctypes.CDLL(None).read(never, ctypes.create_string_buffer(1), 1)
    return {}


def one_ends_early() -> dict[str, Any]:
    if processes.index() == 0:
        processes.agree(1, "what only one asks")
    return {}


PARTS = {
    function.__name__: function
    for function in (
        agreeing, working, with_a_reader, bug_in_one, mistake_in_one, mistake_in_all, interrupted, compiling,
        one_ends_early,
    )
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(guarded(main))
