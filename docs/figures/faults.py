"""The table of planted faults in docs/tuning.md: `python docs/figures/faults.py DIR`, from one report a fault.

for fault in $(python docs/figures/faults.py); do jaxcnn preflight --plant $fault --out DIR/$fault; done
"""

import json
import sys
from pathlib import Path

from jaxcnn.tuning.faults import FAULTS


def table(folder: Path) -> str:
    """Returns the table: a row a fault, with what fails and the figure of the check that must."""
    rows = ["| fault | checks that fail | figure of the first | others that warn |", "| --- | --- | --- | --- |"]
    for name, fault in FAULTS.items():
        findings = json.loads((folder / name / "preflight.json").read_text())["findings"]
        failed = [one for one in findings if one["verdict"] == "fail"]
        warned = [one["check"] for one in findings if one["verdict"] == "warn"]
        figure = failed[0]["figure"] if failed else ""
        names = ", ".join(one["check"] for one in failed) or "**none**"
        rows.append(f"| `{name}`: {fault.says} | {names} | {figure} | {', '.join(warned)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])) if len(sys.argv) > 1 else " ".join(FAULTS))
