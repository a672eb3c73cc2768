"""Runs beside each other: where their configs differ, their final figures, what their curves say."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxcnn.curves import best_line
from jaxcnn.diagnosis import Diagnosis, diagnose
from jaxcnn.errors import InputError
from jaxcnn.run_folder import RunFolder


@dataclass(frozen=True)
class RunRecord:
    """What a run has written of itself, without its weights.

    Attributes:
      name: what it is called among others.
      path: its folder.
      settings: its config as {dotted name: value}.
      lines: of metrics.jsonl.
      result: result.json; none if it has not ended.
      diagnosis: what its curves say.
    """

    name: str
    path: Path
    settings: dict[str, Any]
    lines: list[dict[str, Any]]
    result: dict[str, Any] | None
    diagnosis: Diagnosis

    @property
    def figures(self) -> dict[str, Any]:
        """The best validation top-1 and its epoch, test top-1 and seconds, none where they are not known; shares."""
        best, result = best_line(self.lines), self.result or {}
        return {
            "best_validation_top1": best["validation"]["top1"],
            "best_epoch": best["epoch"],
            "test_top1": (result.get("test") or {}).get("top1"),
            "seconds": result.get("seconds"),
            "finished": self.result is not None,
        }


def read_run(path: str | Path, name: str | None = None) -> RunRecord:
    """Returns the record of a run.

    Raises:
      InputError: the folder is no run, or has no metrics yet.
    """
    folder = RunFolder(path)
    config, lines, result = folder.config, folder.metrics(), folder.result()
    failed = any(event.get("event") == "nonfinite" for event in folder.health())
    if not lines:
        why = "its loss was not finite before the first evaluation" if failed else "metrics.jsonl has no line"
        raise InputError(f"{folder.path} has no curves yet: {why}")
    found = diagnose(
        lines, result, num_classes=len(folder.class_names), epochs=config.train.epochs, failed=failed and not result
    )
    return RunRecord(name or folder.path.resolve().name, folder.path, dotted(config), lines, result, found)


def read_runs(paths: Sequence[str | Path]) -> list[RunRecord]:
    """Returns the records of runs, each under a name of its own: that of its folder, or where two are equal its path.

    Raises:
      InputError: a folder is no run, has no metrics yet, or is named twice.
    """
    places = [Path(path).resolve() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"{place} is named twice")
    names = [place.name for place in places]
    return [
        read_run(path, str(path) if names.count(place.name) > 1 else place.name)
        for path, place in zip(paths, places, strict=True)
    ]


def dotted(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns a config as {dotted name: value}, such as "optim.peak_lr"."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        found.update(dotted(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value})
    return found


def differences(settings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns {dotted name: value of each} of what is not equal in all."""
    names = dict.fromkeys(name for one in settings for name in one)
    table = {name: [one.get(name) for one in settings] for name in names}
    return {name: values for name, values in table.items() if any(value != values[0] for value in values)}


def as_table(runs: Sequence[RunRecord]) -> str:
    """Returns what differs and the final figures as text: a row a setting or figure, a column a run."""
    changed = differences([run.settings for run in runs])
    figures = [run.figures for run in runs]
    rows = [["", *(run.name for run in runs)]]
    rows += [[name, *map(shown, values)] for name, values in changed.items()]
    rows.append([])
    rows.append(["best validation top-1", *(_percent(one["best_validation_top1"]) for one in figures)])
    rows.append(["  at epoch", *(f"{one['best_epoch']:g}" for one in figures)])
    rows.append(["test top-1", *(_percent(one["test_top1"]) for one in figures)])
    rows.append(["seconds", *(_seconds(one) for one in figures)])
    rows.append(["curves say", *(run.diagnosis.kind for run in runs)])
    columns = range(len(runs) + 1)
    widths = [max(len(row[column]) for row in rows if row) for column in columns]
    text = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in columns[1:])] if row else []
        text.append("  ".join(cells).rstrip())
    if not changed:
        text.insert(1, "(equal configs)")
    return "\n".join(text)


def as_json(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Returns the same as JSON takes it: {"runs": [...], "differences": {dotted name: value of each}}."""
    return {
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                **run.figures,
                "diagnosis": {"kind": run.diagnosis.kind, "sentence": run.diagnosis.sentence},
            }
            for run in runs
        ],
        "differences": differences([run.settings for run in runs]),
    }


def shown(value: Any) -> str:
    """Returns a setting as in a config: text bare, sequences as JSON, none as "not set" ("none" is a choice)."""
    if value is None:
        return "not set"
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _seconds(figures: dict[str, Any]) -> str:
    return (
        "unfinished" if not figures["finished"] else "-" if figures["seconds"] is None else f"{figures['seconds']:.0f}"
    )
