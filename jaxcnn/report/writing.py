"""The page of a run, put together from its sections."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.comparison import RunRecord
from jaxcnn.network import build_network
from jaxcnn.page import Markup, element, page
from jaxcnn.report.figures import confusion_section, curves_section, gap_section, heading, worst_section
from jaxcnn.report.health import health_section
from jaxcnn.report.measuring import Measured
from jaxcnn.report.settings import config_section, environment_section, parameters_section
from jaxcnn.run_folder import RunFolder
from jaxcnn.whole import write_whole


def write_report(folder: RunFolder, record: RunRecord, measured: Measured | None, path: Path, note: str = "") -> None:
    """Writes the page of a run: one file, which needs no network and no scripts.

    Args:
      folder: the run.
      record: what it has written of itself.
      measured: validation by its best weights; none: the confusion matrix that the run itself has left, and no images.
      path: file to write, replaced whole.
      note: why there are no images.

    Raises:
      OSError: the file cannot be written.
    """
    config = folder.config
    sections = [heading(record), curves_section(record.lines), gap_section(record)]
    if measured is not None:
        what = f"Validation, by the weights of step {measured.step:,}"
        sections.append(confusion_section(measured.confusion, folder.class_names, what))
        sections.append(worst_section(measured.worst, folder.class_names))
    else:
        sections += _own_confusion(folder)
        if note:
            sections.append(element("p", note, class_="note warn"))
    network = build_network(config, folder.preprocessing, folder.class_names)
    health = health_section(folder.health())
    sections += [] if health is None else [health]
    sections += [
        config_section(config),
        parameters_section(network, config),
        environment_section(_environment(folder), config),
    ]
    write_whole(path, page(f"{record.name}: {config.name}" if config.name != record.name else record.name, *sections))


def _own_confusion(folder: RunFolder) -> list[Markup]:
    """The confusion matrix that the run has left, if it has one."""
    file = folder.confusion("validation")
    if not file.is_file():
        return []
    found = json.loads(file.read_text())
    what = f"Validation, by the weights of step {found['step']:,}"
    return [confusion_section(np.array(found["matrix"], np.int64), found["class_names"], what)]


def _environment(folder: RunFolder) -> dict[str, Any]:
    file = folder.path / "environment.json"
    return json.loads(file.read_text()) if file.is_file() else {}
