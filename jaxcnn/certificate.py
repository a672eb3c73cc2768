"""Proof that what was frozen has not changed: SHA-256 of every frozen leaf at the start and at the end of a phase."""

import hashlib
import json
from typing import Any

from jaxcnn import mesh as meshes
from jaxcnn.errors import RunFailed
from jaxcnn.paths import Tree, flatten
from jaxcnn.run_folder import RunFolder

_FILE = "certificate.json"


def digests(frozen: Tree) -> dict[str, str]:
    """Returns the SHA-256 of each leaf, of its type, shape and bytes, by path (`params/backbone/stem/conv/kernel`)."""
    leaves = flatten(meshes.to_host(frozen))
    return {
        path: hashlib.sha256(f"{leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes()).hexdigest()
        for path, leaf in leaves.items()
    }


class Certificate:
    """What a run folder holds of it: certificate.json, from the first step on, so that it outlives interruptions."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        file = folder.path / _FILE
        self._phases: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []

    def begin(self, phase: int, step: int, frozen: Tree) -> None:
        """Notes the leaves frozen from `step` on; a phase that goes on keeps what was noted at its start."""
        self._phases = self._phases[: phase + 1]
        if len(self._phases) == phase + 1:
            self._phases[phase] |= {"last_step": None, "after": None}
        else:
            self._phases.append({"first_step": step, "before": digests(frozen), "last_step": None, "after": None})
        self._folder.write_json(_FILE, self._phases)

    def end(self, step: int, frozen: Tree) -> None:
        """Notes the leaves after the last step of the phase; nothing, if no step was done."""
        if not self._phases:
            return
        self._phases[-1] |= {"last_step": step, "after": digests(frozen)}
        self._folder.write_json(_FILE, self._phases)

    @property
    def changed(self) -> list[str]:
        """Paths of leaves that were frozen and have changed nevertheless: there must be none."""
        return sorted(
            {
                path
                for phase in self._phases
                if phase["after"] is not None
                for path in phase["before"].keys() | phase["after"].keys()
                if phase["before"].get(path) != phase["after"].get(path)
            }
        )

    def check(self) -> None:
        """Raises RunFailed if a frozen leaf has changed."""
        if changed := self.changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise RunFailed(f"{changed[0]}{more} was frozen and has changed: see {self._folder.path / _FILE}")

    def report(self) -> dict[str, Any] | None:
        """Returns the part of result.json: {"equal": bool, "phases": [{first_step, last_step, before, after}]}.

        None: nothing was ever frozen.
        """
        if not any(phase["before"] for phase in self._phases):
            return None
        return {"equal": not self.changed, "phases": self._phases}
