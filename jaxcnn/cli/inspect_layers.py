"""The layer view of `jaxcnn inspect`: a row a module, as text, JSON or CSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.inspection.layers import LayerRow, Layers, layers_of
from jaxcnn.inspection.receptive_field import Field

DEPTH = 3
"""Names in the paths that are shown where nothing else is said: the blocks of a ResNet, the layers of a VGG."""

_HEAD = ("module", "kind", "output", "parameters", "MFLOP fwd", "bwd", "KiB", "sees px", "stride", "centre")


def show(options: Any, config: TrainConfig | None) -> int:
    """Tells the layers of a config, or of the run that the options of `jaxcnn inspect` name; returns the exit code."""
    from jaxcnn.inspection.subject import network_at, network_of

    if options.depth is not None and options.depth < 1:
        raise InputError(f"--depth {options.depth}: at least 1")
    if config is not None:
        network = network_of(config, options.image_size, options.num_classes)
    else:
        network = network_at(options.place, options.checkpoint)
    layers = layer_view(network.model, network.preprocessing.image_shape, options.image_size)
    depth = options.depth or DEPTH
    if options.csv == "-":
        print(as_csv(layers, depth), end="")
    else:
        tell_layers(layers, depth, as_json=options.json, csv_file=options.csv)
    return 0


def layer_view(model: Any, image_shape: tuple[int, int, int], image_size: int | None = None) -> Layers:
    """Returns the modules of a network, for images of its own size or of another.

    Args:
      model: the network.
      image_shape: height, width and channels it was made for.
      image_size: another side, in pixels; its stem stays what it is.

    Raises:
      InputError: the images are too small for the network.
    """
    side = None if image_size is None else (image_size, image_size)
    if image_size is not None and image_size < 1:
        raise InputError(f"--image-size {image_size}: at least 1 pixel")
    try:
        return layers_of(model, (*(side or image_shape[:2]), image_shape[2]))
    except ValueError as error:
        raise InputError(str(error)) from None


def tell_layers(
    layers: Layers, depth: int | None = DEPTH, *, as_json: bool = False, csv_file: str | None = None
) -> None:
    """Prints the layer view as a table or as JSON, or writes it as CSV.

    Args:
      layers: what `layer_view` gave.
      depth: rows of at most so many names; none: all.
      as_json: one JSON object on standard output.
      csv_file: file to write, in the place of a table.

    Raises:
      InputError: the file cannot be written.
    """
    from jaxcnn.whole import write_whole

    if csv_file:
        try:
            write_whole(Path(csv_file), as_csv(layers, depth))
        except OSError as error:
            raise InputError(f"--csv {csv_file}: {error.strerror}") from None
    if as_json:
        print(json.dumps(as_dict(layers, depth)))
    elif not csv_file:
        print(as_text(layers, depth))


def as_dict(layers: Layers, depth: int | None = None) -> dict[str, Any]:
    """Returns the layer view as JSON takes it: {"image", "total", "whole_flops_forward", "modules"}."""
    return {
        "image": list(layers.image_shape),
        "total": _numbers(layers.rows[0]),
        "whole_flops_forward": layers.whole,
        "modules": [_numbers(row) for row in layers.folded(depth)],
    }


def as_csv(layers: Layers, depth: int | None = None) -> str:
    """Returns a line a module, under a line of names; what is not known is an empty cell."""
    rows = [_numbers(row) for row in layers.folded(depth)]
    for row in rows:
        row["output"] = "x".join(map(str, row["output"]))
    text = io.StringIO()
    table = csv.DictWriter(text, list(_numbers(layers.rows[0])), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _numbers(row: LayerRow) -> dict[str, Any]:
    rows = None if row.field is None else row.field.rows
    return {
        "path": row.path,
        "kind": row.kind,
        "is_layer": row.is_layer,
        "output": list(row.output),
        "parameters": row.parameters,
        "multiply_adds": row.multiply_adds,
        "flops_forward": row.flops_forward,
        "flops_backward": row.flops_backward,
        "activation_bytes": row.activation_bytes,
        "field_size": None if rows is None else rows.size,
        "field_stride": None if rows is None else rows.stride,
        "field_centre": None if rows is None else rows.centre,
        "sees_all": None if row.field is None else row.field.is_global or rows is None,
    }


def as_text(layers: Layers, depth: int | None = DEPTH) -> str:
    """Returns a table with its totals and what its numbers count."""
    folded = layers.folded(depth)
    lines = [_HEAD, *(_cells(row) for row in folded), _cells(layers.rows[0])]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEAD))]
    text = [
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    text.insert(-1, "-" * len(text[0]))
    return "\n".join([*(line.rstrip() for line in text), "", *_notes(layers, folded)])


def _notes(layers: Layers, folded: tuple[LayerRow, ...]) -> list[str]:
    height, width, channels = layers.image_shape
    total = layers.rows[0]
    notes = [
        f"One image of {height}x{width}x{channels}, in evaluation mode. A module is the sum of its layers.",
        f"FLOPs as XLA counts them: a multiply-add is two, products with padding are none. {total.multiply_adds:,} "
        "multiply-adds as papers count.",
    ]
    if layers.whole and total.flops_forward:
        between = layers.whole - total.flops_forward
        notes.append(
            f"Forward as a whole: {layers.whole / 1e6:,.1f} MFLOP; {100 * between / layers.whole:.2f} % are "
            "activations, additions and means between the layers."
        )
    if any(_sees(row.field).endswith("+ all") for row in folded):
        notes.append("+ all: through statistics over the map (norm, squeeze and excitation) all pixels reach it too.")
    return notes


def _cells(row: LayerRow) -> tuple[str, ...]:
    field = row.field
    extent = None if field is None else field.rows
    return (
        row.path or "total",
        row.kind,
        "x".join(map(str, row.output)),
        f"{row.parameters:,}",
        _millions(row.flops_forward),
        _millions(row.flops_backward),
        f"{row.activation_bytes / 1024:,.1f}",
        _sees(field),
        "-" if extent is None else str(extent.stride),
        "-" if extent is None else f"{extent.centre:g}",
    )


def _millions(flops: float | None) -> str:
    return "-" if flops is None else f"{flops / 1e6:,.2f}"


def _sees(field: Field | None) -> str:
    if field is None:
        return "-"
    if field.rows is None or field.columns is None:
        return "all"
    size = f"{field.rows.size}" if field.rows.size == field.columns.size else f"{field.rows.size}x{field.columns.size}"
    return f"{size} + all" if field.is_global else size
