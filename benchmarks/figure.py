"""`python -m benchmarks figure`: docs/figures/performance.png from the JSON files of steps and inference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.arguments import RESULTS, Parser
from jaxcnn.errors import InputError

PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "performance.png"
BARS = {  # Okabe & Ito's colours, apart also in grey
    "ours": ("jaxcnn", "#0072B2"),
    "torch.compile": ("PyTorch, torch.compile", "#E69F00"),
    "flax": ("plain flax", "#BBBBBB"),
}
TITLES = {"steps": "training step", "inference": "inference"}


def main(argv: Sequence[str]) -> int:
    """Draws what was measured."""
    parser = Parser("python -m benchmarks figure", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="file to write")
    found = parser.parse_args(argv)
    results = {name: content for name in TITLES if (content := report.read(found.results, name))}
    if not results:
        raise InputError(f"{found.results} has neither steps.json nor inference.json: measure them first")
    draw(results, found.picture)
    print(found.picture)
    return 0


def draw(results: dict[str, dict[str, Any]], picture: Path) -> None:
    """Draws a panel for each benchmark: ratios to PyTorch eager, with their spread.

    Args:
      results: {"steps" or "inference": what its JSON file holds}.
      picture: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(results), 3.8), layout="constrained")
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, (name, content) in zip(axes, results.items(), strict=True):
        _panel(axis, name, content)
    axes[0].set_ylabel("speed, PyTorch eager = 1")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    report.check_folder(picture.parent, "--picture")
    figure.savefig(picture, dpi=150)


def _panel(axis: Any, name: str, content: dict[str, Any]) -> None:
    rows = [row for row in content["rows"] if row.get("baseline") == "pytorch"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    width = 0.8 / len(BARS)
    for index, (candidate, (label, colour)) in enumerate(BARS.items()):
        own = [row for row in rows if row["candidate"] == candidate]
        places = [networks.index(row["network"]) + (index - (len(BARS) - 1) / 2) * width for row in own]
        medians = [row["ratio"]["median"] for row in own]
        spread = [
            [row["ratio"]["median"] - row["ratio"]["low"] for row in own],
            [row["ratio"]["high"] - row["ratio"]["median"] for row in own],
        ]
        axis.bar(places, medians, width * 0.92, color=colour, label=label, yerr=spread, ecolor="#333333", capsize=2)
        for place, median, high in zip(places, medians, spread[1], strict=True):
            plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the line at 1
            axis.text(place, median + high, f"{median:.2f}", ha="center", va="bottom", fontsize=8, bbox=plate)
    axis.axhline(1, color="#333333", linewidth=1, linestyle="--")
    ticks = []
    for network in networks:
        task = next(row["task"] for row in rows if row["network"] == network)
        ticks.append(f"{network}\n{task['image_px']}x{task['image_px']}, batch {task['batch']}")
    axis.set_xticks(range(len(networks)), ticks, fontsize=8)
    machine = content["machine"]
    where = machine["gpu"] if rows and rows[0]["task"]["device"] == "gpu" else f"{machine['cores']} CPU cores"
    axis.set_title(f"{TITLES[name]}, {rows[0]['task']['dtype'] if rows else ''}, {where}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
