"""`jaxcnn replay RUN`: do a step again that was not finite, from the state and the batch that its run saved."""

import argparse
import json
from collections.abc import Sequence


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="jaxcnn replay", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run folder that holds nonfinite/")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(list(argv))

    from jaxcnn import runtime
    from jaxcnn.nonfinite import in_json, told
    from jaxcnn.replay import replay
    from jaxcnn.run_folder import RunFolder

    runtime.quiet_libraries()
    runtime.set_up_logging()
    runtime.enable_compilation_cache()
    folder = RunFolder(options.run)
    found = replay(folder)
    if options.json:
        print(json.dumps(in_json(found)))
    else:
        figures = f"objective {found['objective']:g}, norm of the gradient {found['grad_norm']:g}"
        print(f"{told(found)}\n{figures}; examples {', '.join(found['examples'][:4])}, ...")
        print(f"state and batch: {folder.path / 'nonfinite'}")
    return 0
