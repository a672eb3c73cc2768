"""`python -m benchmarks inference`: forward passes in evaluation mode beside PyTorch and plain flax."""

from collections.abc import Sequence

from benchmarks import report
from benchmarks.arguments import add_timing, chosen, parse, parser_of, settings_of
from benchmarks.comparison import measure
from benchmarks.timings import PEERS, comparison_of, table
from benchmarks.workloads import TIMED, WORKLOADS


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = parser_of("inference", __doc__)
    add_timing(parser)
    found = parse(parser, argv)
    report.check_folder(found.out)
    networks = chosen(found.networks, WORKLOADS, TIMED[found.device], "--networks")
    candidates = chosen(found.candidates, PEERS, PEERS, "--candidates")
    rows = []
    for name in networks:
        rows += measure(comparison_of(name, candidates, "forward", settings_of(found)), found.rounds, found.warmup)
    report.write(found.out, "inference", argv, rows, table(rows))
    return 0
