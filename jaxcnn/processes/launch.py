"""How a process is told of the others: flags, or the cluster that started it."""

import argparse
import logging
import os
from dataclasses import dataclass
from typing import Any

from jaxcnn.errors import InputError
from jaxcnn.processes.rendezvous import check_address


@dataclass(frozen=True)
class Launch:
    """How this process finds the others; by default there are none."""

    distributed: bool = False
    """Whether SLURM, Open MPI, Kubernetes or the TPU pod say where the others are."""
    coordinator: str | None = None
    """HOST:PORT of the first process."""
    num_processes: int | None = None
    process_id: int | None = None
    timeout: float = 300.0
    """Seconds to wait for the others at the start."""

    @property
    def is_alone(self) -> bool:
        return not self.distributed and self.coordinator is None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that start several processes to a command."""
    group = parser.add_argument_group("several processes", "the same command in each, with the same arguments")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="where the others are is said by SLURM (srun), Open MPI (mpirun), Kubernetes or the TPU pod",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="the first process's host, and a free port there")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which of them this one is, from 0")
    group.add_argument(
        "--start-timeout", type=float, metavar="SECONDS", default=300.0, help="how long to wait for them (300)"
    )


def launch_of(options: Any) -> Launch:
    """Returns what the options ask for.

    Raises:
      InputError: they do not go together, or say too little.
    """
    number, index = options.num_processes, options.process_id
    coordinator = options.coordinator
    if coordinator is None and (number is not None or index is not None or options.distributed):
        coordinator = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is not None:
        check_address(coordinator, "--coordinator" if options.coordinator else "JAX_COORDINATOR_ADDRESS")
    given = {"--coordinator HOST:PORT": coordinator, "--num-processes N": number, "--process-id I": index}
    missing = [name for name, value in given.items() if value is None]
    if not options.distributed and 0 < len(missing) < 3:
        raise InputError(
            f"{', '.join(missing)} missing: all three are needed, or --distributed where a cluster says them"
        )
    if number is not None and number < 1:
        raise InputError(f"--num-processes {number}: at least 1")
    if index is not None and (index < 0 or (number is not None and index >= number)):
        raise InputError(f"--process-id {index}: from 0 to N - 1 with --num-processes {number}")
    if not options.start_timeout > 0:
        raise InputError(f"--start-timeout {options.start_timeout}: seconds, above 0")
    return Launch(options.distributed, coordinator, number, index, options.start_timeout)


def warn_if_alone_among_many() -> None:
    """Says that a launcher has started several tasks that know nothing of each other.

    It is no error: independent runs under one srun, each with its own seed, are a way of working.
    """
    for number, index in (("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")):
        tasks = os.environ.get(number, "1")
        if tasks.isdecimal() and int(tasks) > 1 and os.environ.get(index) == "0":
            logging.getLogger("jaxcnn").warning(
                f"warning: {number}={tasks}: each of these tasks trains a network alone; with --distributed they train "
                "one together"
            )
