"""`jaxcnn --version`: the version and the environment."""

import argparse
import json
from collections.abc import Sequence

from jaxcnn import __version__
from jaxcnn.runtime import environment


def run(argv: Sequence[str], *, started: float) -> int:
    parser = argparse.ArgumentParser(prog="jaxcnn --version", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(argv)
    report = environment()
    if options.json:
        print(json.dumps({"version": __version__, **report}))
        return 0
    print(f"jaxcnn {__version__}")
    print(
        f"device      {report['devices']} x {report['device']} ({report['backend']}), {report['cpu_cores']} CPU cores"
    )
    print(f"platform    {report['platform']}")
    print(f"cache       {report['compilation_cache']}")
    for package, version in report["versions"].items():
        print(f"{package:20s} {version}")
    return 0
