"""`jaxcnn models`: every network with its parameters, multiply-adds, input size and paper."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from jaxcnn.errors import InputError, did_you_mean

_EPILOG = (
    "Parameters are for three channels and 1000 classes, or 10 for the CIFAR networks (32x32). GFLOPs count each "
    "multiply-add of convolutions and dense layers once, forward, for one image, as papers and torchvision do."
)


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="jaxcnn models", description=__doc__, epilog=_EPILOG, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="NAME", help="only networks whose name contains one of these")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(list(argv))

    names = _select(options.parts)
    if options.json:
        print(json.dumps({"models": [_measure(name) for name in names]}))
        return 0
    print(f"{'name':17s} {'parameters':>11s} {'GFLOPs':>8s} {'input':>9s} {'classes':>7s}  paper")
    for name in names:  # each row as soon as it is known: all of them take some ten seconds
        row = _measure(name)
        print(
            f"{name:17s} {row['parameters']:11,d} {row['gflops']:8.3f} {row['input']:>9s} {row['classes']:7d}  "
            f"{row['paper']}",
            flush=True,
        )
    return 0


def _select(parts: Sequence[str]) -> list[str]:
    from jaxcnn.models.registry import NETWORKS

    for part in parts:
        if not any(part in name for name in NETWORKS):
            raise InputError(f"no network has {part!r} in its name; {did_you_mean(part, NETWORKS)}")
    return [name for name in NETWORKS if not parts or any(part in name for part in parts)]


def _measure(name: str) -> dict[str, Any]:
    from jaxcnn.config import ModelConfig
    from jaxcnn.models.cost import cost_of
    from jaxcnn.models.registry import NETWORKS, build_model

    network = NETWORKS[name]
    shape = (network.image_px, network.image_px, 3)
    cost = cost_of(build_model(ModelConfig(name=name), shape, network.num_classes), shape)
    return {
        "name": name,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "gflops": round(cost.multiply_adds / 1e9, 3),
        "input": f"{shape[0]}x{shape[1]}x{shape[2]}",
        "classes": network.num_classes,
        "paper": network.paper,
    }
