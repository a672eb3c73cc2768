"""`jaxcnn curves RUN [RUN ...]`: curves of a run and what they say; of several over each other, and what differs."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from jaxcnn.errors import InputError


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="jaxcnn curves", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder, finished or not")
    parser.add_argument(
        "--out", metavar="FILE.png", help="the figure (default: RUN/curves.png; of several runs: curves.png)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(list(argv))

    from jaxcnn.comparison import as_json, as_table, read_runs
    from jaxcnn.curves import plot_curves, plot_several

    runs = read_runs(options.runs)
    single = len(runs) == 1
    out = Path(options.out or (runs[0].path / "curves.png" if single else "curves.png"))
    if out.suffix != ".png":
        raise InputError(f"--out {out}: the figure is a PNG: name a file that ends in .png")
    try:
        if single:
            plot_curves(runs[0].lines, out, runs[0].name, runs[0].diagnosis.sentence)
        else:
            plot_several({one.name: one.lines for one in runs}, out)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    if options.json:
        print(json.dumps({**as_json(runs), "figure": str(out)}))
        return 0
    if not single:
        print(f"{as_table(runs)}\n")
    for one in runs:
        print(one.diagnosis.sentence if single else f"{one.name}: {one.diagnosis.sentence}")
    if single:
        _tell_gap(runs[0].lines[-1], runs[0].result)
    print(f"figure: {out}")
    return 0


def _tell_gap(line: dict, result: dict | None) -> None:
    from jaxcnn.gap import gap_sentence, split_of_line

    print(gap_sentence(result["gap"]) if result and result.get("gap") else split_of_line(line))
