"""Helpers of the tests that run whole commands: run, read, compare bit by bit."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import TrainConfig
from jaxcnn.interruption import StopRequest
from jaxcnn.run_folder import RunFolder


class StopAt(StopRequest):
    """Asks to stop when a run has sent its n-th dispatch."""

    def __init__(self, dispatches: int):
        super().__init__()
        self.left = dispatches

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


ROOT = Path(__file__).parent.parent
TIMES = {"images_per_second", "data_wait_share"}


def write_config(config: TrainConfig, path: Path) -> Path:
    """Returns a config file that gives this config."""
    path.write_text(
        "from jaxcnn.config import *\nfrom jaxcnn.config_reader import parse_json\n\n\n"
        f"def get_config():\n    return parse_json(TrainConfig, {json.dumps(json.dumps(_plain(config)))}, __file__)\n"
    )
    return path


def _plain(config: TrainConfig) -> Any:
    from jaxcnn.config_reader import to_json

    return json.loads(to_json(config))


def start(*arguments: object, environment: Mapping[str, str] = MappingProxyType({}), **keywords: Any) -> Any:
    """Starts `python train.py ...` in a process of its own; `environment` is added to this one's."""
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    own = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own, **keywords)


def command(*arguments: object, module: str = "jaxcnn.cli") -> subprocess.CompletedProcess:
    """Runs `jaxcnn ...` in a process of its own."""
    code = f"import sys; from {module} import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def fingerprint(run: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions, arrays as bytes."""
    folder = RunFolder(run)
    checkpoints = Checkpoints(folder.checkpoints, read_only=True)
    latest, best = checkpoints.steps()[-1], checkpoints.best_step()
    arrays = {}
    for step in {latest, best}:
        for item in ("model", "average", "optimizer", "sums"):
            if (place := folder.checkpoints / str(step) / item).is_dir():
                tree = _in_numpy(place.absolute())
                for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                    arrays[f"{step}/{item}/{jax.tree_util.keystr(path)}"] = np.asarray(leaf).tobytes()
    result = json.loads((run / "result.json").read_text())
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in folder.metrics()]
    figures = {name: result[name] for name in ("validation", "test", "best_step", "final")}
    return {"latest": latest, "best": best, "arrays": arrays, "metrics": lines, "result": figures}


def _in_numpy(place: Path) -> Any:
    """A tree of a checkpoint, wherever its leaves were: the devices need not be here."""
    reader = ocp.PyTreeCheckpointer()
    shapes = reader.metadata(place).item_metadata.tree
    return reader.restore(place, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes))


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Asserts that two fingerprints are equal, naming the first difference."""
    for name in ("latest", "best", "metrics", "result"):
        assert first[name] == second[name], name
    assert first["arrays"].keys() == second["arrays"].keys()
    differing = [path for path, value in first["arrays"].items() if second["arrays"][path] != value]
    assert not differing, differing[:3]
