"""The states of a run on disk: the one it starts from, those of its evaluations, the one it is interrupted at."""

import time
from typing import Any

from jaxcnn.checkpoint import Checkpoints
from jaxcnn.job import Job
from jaxcnn.progress import Progress
from jaxcnn.run_folder import RunFolder, going_on
from jaxcnn.training.metrics import Sums
from jaxcnn.training.state import TrainState, from_trees, to_trees
from jaxcnn.writer import LOG


class Saves:
    """The checkpoints of a run, and how far it is."""

    def __init__(self, job: Job, folder: RunFolder, started: float):
        """Args: started: when this session began (`time.perf_counter()`)."""
        self._job, self._folder, self._started = job, folder, started
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.progress = Progress()
        self._saved: tuple[int, bool] | None = None
        """The step of the latest checkpoint, and whether the evaluation at it was done."""

    def first_state(self) -> tuple[TrainState, Sums]:
        """Returns the state to start from: that of the newest whole checkpoint, else that before step 0."""
        sums = self._job.zero_sums()
        restored = self.checkpoints.restore_newest(self._templates, LOG.warning)
        if restored is None:
            self._folder.cut_metrics(0)
            return self._job.initial_state(), sums
        trees, notes = restored
        self.progress = Progress(**notes)
        state, sums = from_trees(trees, self._job.phases[self.progress.phase].rule)
        step = int(state.step)
        self._saved = step, self.progress.evaluated
        self._folder.cut_metrics(step, evaluated=self.progress.evaluated)
        LOG.info(f"{self._folder.path}: going on from step {step} of {self._job.total_steps}")
        return state, sums

    def _templates(self, progress: dict[str, Any]) -> dict[str, Any]:
        """The form of a checkpoint: what has an optimizer state and an average depends on the phase."""
        return to_trees(self._job.state_shapes(progress.get("phase", 0)), self._job.zero_sums())

    def save(self, step: int, state: TrainState, sums: Sums, figures: dict[str, Any] | None) -> None:
        """Saves in the background.

        Args:
          step: steps done.
          state, sums: after them; the sums since the last evaluation.
          figures: of the validation split, where it was measured.
        """
        notes = {**vars(self.progress), "seconds": self.seconds()}
        self.checkpoints.save(step, to_trees(state, sums), notes, figures)
        self._saved = step, self.progress.evaluated

    def interrupted(self, step: int, state: TrainState, sums: Sums) -> str:
        """Saves what is not saved yet, waits until it is on disk, and returns the line that says how to go on."""
        # Of a step that was not finite all that were sent after it are left out; the run finds it again.
        if step and self._saved != (step, self.progress.evaluated) and int(state.step) == step:
            self.save(step, state, sums, None)
        self.checkpoints.close()
        if self._saved is None:
            return f"interrupted before the first step: there is nothing to save; go on with: {going_on(self._folder)}"
        step, evaluated = self._saved
        where = f"step {step} of {self._job.total_steps}"
        if not evaluated and self.progress.timing is not None:
            where += ", before the evaluation there"
        elif step == self._job.total_steps or self.progress.stopped_early:
            where += ", before the result was measured"
        return f"interrupted and saved at {where}; go on with: {going_on(self._folder)}"

    def best(self, step: int, state: TrainState) -> tuple[int, TrainState, int]:
        """Returns (its step, state, phase) of the best evaluation; the last step and its state may be it."""
        assert self.progress.best is not None
        if int(self.progress.best["step"]) == step:
            return step, state, self.progress.phase
        trees, notes, best = self.checkpoints.restore_best(self._templates, LOG.warning)
        phase = notes.get("phase", 0)
        return best, from_trees(trees, self._job.phases[phase].rule)[0], phase

    def seconds(self) -> float:
        """Returns the wall time of all sessions."""
        return self.progress.seconds + time.perf_counter() - self._started
