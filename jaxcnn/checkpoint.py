"""Checkpoints: orbax behind one small interface.

A checkpoint is a few named trees of arrays and a dict of progress. Saving is asynchronous; the latest two and the best
are kept, and an old one is deleted only after a newer one is committed. Checksums of all leaves are kept beside them,
because a flipped byte in the data files is otherwise restored without an error.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.errors import InputError, RunFailed

Progress = dict[str, Any]


class Checkpoints:
    """The checkpoints of one folder, by step."""

    def __init__(self, folder: Path, *, read_only: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        self.folder = folder.absolute()
        self._ocp = ocp
        self._open = lambda: ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # Orbax keeps the figures of a checkpoint on disk only if it is given best_fn.
                best_fn=_rank,
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(2), BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)]
                ),
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                create=not read_only,
            ),
        )
        self._manager = self._open()

    def steps(self) -> list[int]:
        """Returns the steps that can be restored, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step of the highest validation top-1 (if equal, the lower loss), else the latest."""
        best = self._manager.best_step()
        return best if best is not None else self._manager.latest_step()

    def save(
        self, step: int, trees: Mapping[str, Any], progress: Progress, figures: Mapping[str, float] | None = None
    ) -> None:
        """Saves in the background; the arrays may be changed or donated as soon as this returns.

        Args:
          step: steps done.
          trees: named trees of arrays.
          progress: what JSON can hold.
          figures: validation top1 and loss by which the best is chosen; none where it was not measured.

        Raises:
          RunFailed: this or the previous save failed (disk full, folder gone).
        """
        # TensorStore makes no array of no elements, and no tree without leaves.
        trees = {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
        sums = {name: checksum(tree) for name, tree in trees.items()}
        items = {name: self._ocp.args.StandardSave(tree) for name, tree in trees.items()}
        note = self._ocp.args.JsonSave({"progress": progress, "checksums": sums})
        kept = None if figures is None else {name: float(figures[name]) for name in ("top1", "loss")}
        self._guard(
            step, lambda: self._manager.save(step, args=self._ocp.args.Composite(**items, progress=note), metrics=kept)
        )

    def wait(self) -> None:
        """Returns when the last save is on disk; raises RunFailed if it failed."""
        self._guard(None, self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits for the last save and ends the background threads."""
        self.wait()
        self._manager.close()

    def restore(self, step: int, templates: Mapping[str, Any]) -> tuple[dict[str, Any], Progress]:
        """Returns the named trees and the progress of one checkpoint.

        Args:
          step: which.
          templates: trees of arrays or shapes (with shardings, if any) in the form of what was saved.

        Raises:
          InputError: no such checkpoint, or one that is damaged or of another form.
        """
        if step not in self.steps():
            raise InputError(f"{self.folder}: no checkpoint at step {step}; there are {self.steps() or 'none'}")
        args = {name: self._ocp.args.StandardRestore(tree) for name, tree in templates.items() if jax.tree.leaves(tree)}
        try:
            restored = self._manager.restore(
                step, args=self._ocp.args.Composite(**args, progress=self._ocp.args.JsonRestore())
            )
            note = restored["progress"]
            for name in args:
                if checksum(restored[name]) != note["checksums"][name]:
                    raise ValueError(f"the checksum of {name!r} is wrong")
        except Exception as error:
            raise InputError(f"{self.folder}: checkpoint {step} is damaged ({_first_line(error)})") from None
        return {name: restored[name] if name in args else tree for name, tree in templates.items()}, note["progress"]

    def restore_latest(
        self, templates: Mapping[str, Any], warn: Callable[[str], None]
    ) -> tuple[dict[str, Any], Progress] | None:
        """Returns the newest checkpoint that is whole, or none if there is no checkpoint.

        A damaged one is told to `warn` and moved out of the way, to `damaged-STEP` beside the folder, so that the run
        can write that step again.

        Raises:
          InputError: there are checkpoints, but all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                restored = self.restore(step, templates)
            except InputError as error:
                warn(f"{error}; falling back to the one before")
                self._set_aside(step)
                continue
            return restored
        if steps:
            raise InputError(
                f"{self.folder}: all {len(steps)} checkpoints are damaged; start anew in another --workdir"
            )
        return None

    def _set_aside(self, step: int) -> None:
        self._manager.close()
        target = self.folder.parent / f"damaged-{step}"
        number = 1
        while target.exists():
            number += 1
            target = self.folder.parent / f"damaged-{step}-{number}"
        (self.folder / str(step)).rename(target)
        self._manager = self._open()

    def _guard(self, step: int | None, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            what = "the last checkpoint" if step is None else f"the checkpoint at step {step}"
            whole = [str(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit()]
            safe = (
                f"those of steps {', '.join(sorted(whole, key=int))} are intact" if whole else "there is no older one"
            )
            raise RunFailed(f"{self.folder}: {what} could not be saved ({_reason(error)}); {safe}") from error


def checksum(tree: Any) -> int:
    """Returns the CRC-32 of all leaves in the order of the tree."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.asarray(leaf).tobytes(), total)
    return total


def _rank(figures: Mapping[str, float]) -> tuple[float, float]:
    return figures["top1"], -figures["loss"]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _reason(error: BaseException) -> str:
    return "no space left on the device" if "No space left" in str(error) else _first_line(error)
