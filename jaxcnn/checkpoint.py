"""Checkpoints: orbax behind one small interface.

A checkpoint is a few named trees of arrays and a dict of progress. Saving is asynchronous; the latest two and the best
are kept, and an old one is deleted only after a newer one is committed. Checksums of all leaves are kept beside them,
because a flipped byte in the data files is otherwise restored without an error.
"""

import hashlib
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcnn import processes
from jaxcnn.errors import InputError, RunFailed
from jaxcnn.mesh import to_host
from jaxcnn.orbax_threads import barrier, mute_cut_off_tasks
from jaxcnn.runtime import quiet_libraries

Progress = dict[str, Any]
Templates = Mapping[str, Any] | Callable[[Progress], Mapping[str, Any]]
"""Trees in the form of what was saved, or how they follow from the progress of a checkpoint."""
_REPLACED = "replaced-"


class Damaged(InputError):
    """A checkpoint whose files cannot be read or whose checksums are wrong."""


class Checkpoints:
    """The checkpoints of one folder, by step."""

    def __init__(self, folder: Path, *, read_only: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        quiet_libraries()
        mute_cut_off_tasks()
        self.folder = folder.absolute()
        self._ocp = ocp
        self._policy = AnyPreservationPolicy(
            [LatestN(2), BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)]
        )
        self._replaces = False
        self._read_only = read_only
        if not read_only:
            processes.first_does(self._put_back, "checkpoints put back")
        self._open()

    def _open(self) -> None:
        self._manager = self._manager_of(self._read_only)
        # Of several processes each reads by itself: orbax lets those that can read wait for the one that cannot.
        self._reader = self._manager if processes.count() == 1 or self._read_only else self._manager_of(True)

    def _manager_of(self, read_only: bool) -> Any:
        own = {"primary_host": processes.index(), "active_processes": {processes.index()}}
        alone = read_only and processes.count() > 1
        return self._ocp.CheckpointManager(
            self.folder,
            options=self._ocp.CheckpointManagerOptions(
                # Orbax keeps the figures of a checkpoint on disk only if it is given best_fn.
                best_fn=_rank,
                preservation_policy=self._policy,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                create=not read_only,
                async_options=self._ocp.AsyncOptions(barrier_sync_fn=barrier),
                multiprocessing_options=self._ocp.options.MultiprocessingOptions(**own if alone else {}),
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps that can be restored, in order."""
        return sorted(self._manager.all_steps())

    def on_disk(self) -> list[int]:
        """Returns the steps that are whole on disk at this moment, in order: not what is being saved."""
        places = [*self.folder.glob("[0-9]*"), *self.folder.parent.glob(f"{_REPLACED}*")]
        names = {path.name.removeprefix(_REPLACED) for path in places}
        return sorted(int(name) for name in names if name.isdigit())

    def best_step(self) -> int | None:
        """Returns the step of the highest validation top-1 (of equal ones the latest), else the latest."""
        best = self._manager.best_step()
        return best if best is not None else self._manager.latest_step()

    def save(
        self, step: int, trees: Mapping[str, Any], progress: Progress, figures: Mapping[str, float] | None = None
    ) -> None:
        """Saves in the background; the arrays may be changed or donated as soon as this returns.

        Args:
          step: steps done; a checkpoint of the same step is replaced.
          trees: named trees of arrays.
          progress: what JSON can hold.
          figures: with the validation `top1` by which the best is chosen; none where it was not measured.

        Raises:
          RunFailed: this or the previous save failed (disk full, folder gone).
        """
        # TensorStore makes no array of no elements, and no tree without leaves.
        trees = {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
        forms = {name: form(tree) for name, tree in trees.items()}
        sums = {name: checksum(tree) for name, tree in trees.items()}
        items = {name: self._ocp.args.StandardSave(tree) for name, tree in trees.items()}
        note = self._ocp.args.JsonSave({"progress": progress, "forms": forms, "checksums": sums})
        kept = None if figures is None else {"top1": float(figures["top1"])}
        if step in self.steps():  # of an interruption before the evaluation of this step
            self._guard(None, lambda: self._move_away(step))
        self._guard(
            step, lambda: self._manager.save(step, args=self._ocp.args.Composite(**items, progress=note), metrics=kept)
        )

    def wait(self) -> None:
        """Returns when the last save is on disk; raises RunFailed if it failed."""
        self._guard(None, self._manager.wait_until_finished)
        if self._replaces and processes.is_first():
            self._put_back()
        self._replaces = False

    def close(self) -> None:
        """Waits for the last save and ends the background threads."""
        self.wait()
        self._manager.close()

    def _move_away(self, step: int) -> None:
        """Makes place for a checkpoint of the same step; until that is on disk the old one stays beside the folder."""
        self.wait()
        if processes.is_first():
            (self.folder / str(step)).rename(self.folder.parent / f"{_REPLACED}{step}")
        processes.barrier("a checkpoint is replaced")
        self._see(lambda: step not in self.steps())
        self._replaces = True

    def _see(self, there: Callable[[], bool]) -> None:
        """Reads the folder anew until it shows what the first process sees: a shared file system may do so late."""
        self._manager.reload()
        for _ in range(600):
            if there():
                return
            time.sleep(0.1)
            self._manager.reload()

    def _put_back(self) -> None:
        """Puts a checkpoint back whose replacement was cut off; removes one that is replaced."""
        for replaced in self.folder.parent.glob(f"{_REPLACED}*"):
            place = self.folder / replaced.name.removeprefix(_REPLACED)
            if place.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(place)

    def restore(self, step: int, templates: Templates) -> tuple[dict[str, Any], Progress]:
        """Returns the named trees and the progress of one checkpoint.

        Args:
          step: which.
          templates: trees of arrays or shapes (with shardings, if any) in the form of what was saved; or a function
            that returns them for the progress of a checkpoint, on which their form may depend.

        Raises:
          InputError: no such checkpoint, or one of another form than the templates.
          Damaged: it cannot be read, or a checksum is wrong.
        """
        if step not in self.steps():
            raise InputError(f"{self.folder}: no checkpoint at step {step}; there are {self.steps() or 'none'}")
        note = self._read(step, {"progress": self._ocp.args.JsonRestore()})["progress"]
        trees = templates(note["progress"]) if callable(templates) else templates
        wanted = {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
        if other := [name for name, tree in wanted.items() if note["forms"].get(name) != form(tree)]:
            what = ", ".join(other)
            whose = "another version of jaxcnn" if other == ["sums"] else "another network or optimizer"
            raise InputError(
                f"{self.folder}: checkpoint {step} is of {whose} ({what}); its weights can still be started from: "
                f"--init-from {self.folder.parent}"
            )
        args = {name: self._ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
        found = self._read(step, args) if args else {}  # asked for nothing, orbax reads all
        for name in wanted:  # a checksum is that of the whole tree, and so the same in all processes
            if checksum(found[name]) != note["checksums"][name]:
                raise Damaged(f"{self.folder}: checkpoint {step} is damaged (the checksum of {name!r} is wrong)")
        return {name: found[name] if name in wanted else tree for name, tree in trees.items()}, note["progress"]

    def restore_newest(self, templates: Templates, warn: Callable[[str], None]) -> tuple[Any, Progress] | None:
        """Returns trees and progress of the newest checkpoint that is whole, or none if there is no checkpoint.

        Damaged ones are told to `warn` and, once an older one was restored, moved to `damaged-STEP` beside the
        folder, so that the run can write those steps again.

        Raises:
          InputError: the checkpoints are of another form, or all are damaged; then nothing is moved.
        """
        steps = processes.agree(self.steps(), "the checkpoints")[::-1]
        if set(steps) != set(self.steps()):
            self._see(lambda: set(steps) == set(self.steps()))
        if not steps:
            return None
        trees, progress, step = self._first_whole(steps, templates, warn)
        self._set_aside([damaged for damaged in steps if damaged > step])
        return trees, progress

    def restore_best(self, templates: Templates, warn: Callable[[str], None]) -> tuple[Any, Progress, int]:
        """Returns trees, progress and step of the best checkpoint that is whole; raises as `restore_newest`."""
        return self._first_whole(sorted(self.steps(), key=self._merit, reverse=True), templates, warn)

    def _merit(self, step: int) -> tuple[float, int]:
        try:
            figures = self._manager.metrics(step)
        except Exception:
            figures = None
        return (-1.0 if figures is None else _rank(figures), step)

    def _first_whole(
        self, steps: Sequence[int], templates: Templates, warn: Callable[[str], None]
    ) -> tuple[Any, Progress, int]:
        for step in steps:
            try:
                return *self.restore(step, templates), step
            except Damaged as error:
                warn(f"{error}; taking another")
        raise InputError(f"{self.folder}: all {len(steps)} checkpoints are damaged; start anew in another --workdir")

    def _read(self, step: int, args: dict[str, Any]) -> Any:
        found, reason = None, None
        try:
            found = self._reader.restore(step, args=self._ocp.args.Composite(**args))
        except Exception as error:
            reason = _first_line(error)
        if not self._read_only:  # a process may read what is damaged for another
            reason = processes.first_reason(reason)
        if reason is not None:
            raise Damaged(f"{self.folder}: checkpoint {step} is damaged ({reason})")
        return found

    def _set_aside(self, steps: Sequence[int]) -> None:
        if not steps:
            return
        self._manager.close()
        for step in steps if processes.is_first() else ():
            names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
            target = next(self.folder.parent / name for name in names if not (self.folder.parent / name).exists())
            (self.folder / str(step)).rename(target)
        processes.barrier("damaged checkpoints set aside")
        self._open()

    def _guard(self, step: int | None, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            what = "the last checkpoint" if step is None else f"the checkpoint at step {step}"
            whole = ", ".join(map(str, self.on_disk()))
            safe = f"those of steps {whole} are intact" if whole else "there is no older one"
            raise RunFailed(f"{self.folder}: {what} could not be saved ({_reason(error)}); {safe}") from error


def form(tree: Any) -> str:
    """Returns a digest of the names, shapes and types of all leaves; they may be shapes only."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    lines = [f"{jax.tree_util.keystr(path)} {tuple(leaf.shape)} {leaf.dtype}" for path, leaf in leaves]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def checksum(tree: Any) -> int:
    """Returns the CRC-32 of all leaves in the order of the tree."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(to_host(leaf).tobytes(), total)
    return total


def _rank(figures: Mapping[str, float]) -> float:
    return figures["top1"]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _reason(error: BaseException) -> str:
    return "no space left on the device" if "No space left" in str(error) else _first_line(error)
