"""`python -m benchmarks inference`: forward passes in evaluation mode beside PyTorch and plain flax."""

from collections.abc import Sequence

from benchmarks import report
from benchmarks.arguments import add_timing, chosen, parse, parser_of
from benchmarks.comparison import measure
from benchmarks.steps import GPU_STEPS, PEERS
from benchmarks.timings import comparison_of, table
from benchmarks.workloads import TIMED, WORKLOADS


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = parser_of("inference", __doc__)
    add_timing(parser)
    found = parse(parser, argv)
    report.check_folder(found.out)
    networks = chosen(found.networks, WORKLOADS, TIMED[found.device], "--networks")
    candidates = chosen(found.candidates, PEERS, PEERS, "--candidates")
    settings = {"dtype": found.dtype, "device": found.device, "options": found.option, "batch": found.batch}
    settings["steps"] = GPU_STEPS if found.device == "gpu" else 1
    rows = []
    for name in networks:
        rows += measure(comparison_of(name, candidates, "forward", settings), found.rounds, found.warmup)
    report.write(found.out, "inference", argv, rows, table(rows))
    return 0
