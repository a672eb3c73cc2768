"""What a run tells while it trains: progress on the terminal, metrics.jsonl, TensorBoard. Process 0 only."""

import logging
import sys
import time
from typing import Any

import jax

from jaxcnn.run_folder import RunFolder

LOG = logging.getLogger("jaxcnn")
_QUIET_SECONDS = 30.0  # between progress lines where there is no terminal to redraw


class Writer:
    """Receives progress and figures; silent in all processes but the first."""

    def __init__(self, folder: RunFolder, total_steps: int, first_step: int):
        from tqdm import tqdm

        self._folder = folder
        self._active = jax.process_index() == 0
        self._tensorboard: Any = None
        self._first_step = first_step
        self._total = total_steps
        self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=not (self._active and self._terminal),
        )

    def progress(self, step: int, loss: float, top1: float) -> None:
        """Shows where the run is: a redrawn line on a terminal, else a line now and then."""
        if not self._active:
            return
        text = f"loss {loss:.4f}, top-1 {100 * top1:.1f} %"
        if self._terminal:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._said > _QUIET_SECONDS:
            self.say(f"step {step} of {self._total}: {text}")

    def evaluation(self, line: dict[str, Any]) -> None:
        """Records one evaluation everywhere."""
        if not self._active:
            return
        self._folder.append_metrics(line)
        board = self._board()
        for part in ("train", "clean", "validation"):
            for name in ("loss", "top1", "top5") if part in line else ():
                board.add_scalar(f"{name}/{part}", line[part][name], line["step"])
        for name in ("learning_rate", "images_per_second", "data_wait_share", "grad_norm"):
            board.add_scalar(name, line[name], line["step"])
        board.flush()
        train, validation = line["train"], line["validation"]
        self.say(
            f"epoch {line['epoch']:5.1f}  step {line['step']:6d}  "
            f"train loss {train['loss']:.4f} top-1 {100 * train['top1']:6.2f} %   "
            f"validation loss {validation['loss']:.4f} top-1 {100 * validation['top1']:6.2f} %   "
            f"lr {line['learning_rate']:.4g}  {line['images_per_second']:.0f} images/s"
        )

    def health(self, line: dict[str, Any]) -> None:
        """Records a look at the layers, or an event such as a spike of the loss."""
        if not self._active:
            return
        self._folder.append_health(line)
        if "event" in line:
            return
        board = self._board()
        for path, leaf in line["leaves"].items():
            for name, value in leaf.items():
                board.add_scalar(f"{name}/{path}", value, line["step"])
        for path, layer in line["layers"].items():
            for name, value in layer.items():
                board.add_scalar(f"activation_{name}/{path}", value, line["step"])

    def say(self, text: str) -> None:
        """Writes a line to the log without breaking the progress line."""
        if self._active:
            self._said = time.monotonic()
            self._bar.clear()
            LOG.info(text)

    def close(self) -> None:
        """Ends the progress line and the event file."""
        self._bar.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _board(self) -> Any:
        if self._tensorboard is None:
            from tensorboardX import SummaryWriter

            # After a resume, events of steps that come again are hidden.
            purge = self._first_step + 1 if self._first_step else None
            self._tensorboard = SummaryWriter(str(self._folder.tensorboard), purge_step=purge)
        return self._tensorboard
