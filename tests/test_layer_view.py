"""The layer view: its FLOPs against closed forms, its sums against the network's, its three outputs."""

import csv
import io
import json
import math
from typing import Any

import jax
import pytest

from jaxcnn.cli.inspect_layers import as_csv, as_dict, as_text, layer_view, tell_layers
from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.inspection.layers import LayerRow, Layers
from jaxcnn.models import build_model
from jaxcnn.models.cost import cost_of


def built(name: str, side: int, **options: Any) -> Any:
    return build_model(ModelConfig(name=name, **options), (side, side, 3), 10)


@pytest.fixture(scope="module")
def resnet() -> Layers:
    return layer_view(built("resnet18", 224, width=8), (224, 224, 3))


def row_of(layers: Layers, path: str) -> LayerRow:
    return next(row for row in layers.rows if row.path == path)


def products(size: int, kernel: int, stride: int, padding: int) -> int:
    """Pairs of an output and a pixel of its window that exists, along one axis."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    return sum(0 <= stride * i - padding + k < size for i in range(outputs) for k in range(kernel))


@pytest.mark.parametrize(
    ("path", "size", "kernel", "stride", "channels"),
    [
        ("backbone/stem/conv", 224, 7, 2, (3, 8)),
        ("backbone/stage1/block1/conv1", 56, 3, 1, (8, 8)),
        ("backbone/stage2/block1/conv1", 56, 3, 2, (8, 16)),
        ("backbone/stage2/block1/shortcut_conv", 56, 1, 2, (8, 16)),
        ("backbone/stage4/block2/conv2", 7, 3, 1, (64, 64)),
    ],
)
def test_flops_of_a_convolution_are_those_of_its_closed_form(resnet, path, size, kernel, stride, channels) -> None:
    row, padding = row_of(resnet, path), (kernel - 1) // 2
    pairs = products(size, kernel, stride, padding) ** 2 * math.prod(channels)
    assert row.flops_forward == 2 * pairs
    assert row.flops_backward == pytest.approx(2 * 2 * pairs, rel=0.01)  # of the kernel, and of the input
    outputs = row.output[0] * row.output[1]
    assert row.multiply_adds == outputs * kernel**2 * math.prod(channels)
    assert row.parameters == kernel**2 * math.prod(channels)
    assert row.activation_bytes == 4 * math.prod(row.output)


def test_flops_of_a_dense_layer_are_those_of_its_products(resnet) -> None:
    head = row_of(resnet, "head")
    assert head.flops_forward == 2 * 64 * 10 + 10  # and its bias
    assert head.flops_backward == pytest.approx(2 * head.flops_forward, rel=0.02)
    assert (head.parameters, head.output, head.multiply_adds) == (650, (10,), 640)


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {"width": 8}), ("resnet20", {"scan_blocks": True}), ("vgg11", {"width": 8, "neck": "pooled"})],
)
def test_the_layers_add_up_to_the_network(name, options) -> None:
    side = 32 if name == "resnet20" else 64
    model = built(name, side, **options)
    layers = layer_view(model, (side, side, 3))
    total, cost = layers.rows[0], cost_of(model, (side, side, 3))
    assert (total.parameters, total.multiply_adds) == (cost.parameters, cost.multiply_adds)
    for name in ("parameters", "multiply_adds", "flops_forward", "flops_backward", "activation_bytes"):
        assert sum(getattr(row, name) for row in layers.layers) == pytest.approx(getattr(total, name))
        tops = [row for row in layers.rows if row.depth == 1]
        assert sum(getattr(row, name) for row in tops) == pytest.approx(getattr(total, name))
    assert total.flops_forward < layers.whole < 1.02 * total.flops_forward


def test_layers_are_those_of_the_parameters(resnet) -> None:
    model = built("resnet18", 224, width=8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), "float32"))
    paths = {
        "/".join(key.key for key in path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(shapes["params"])
    }
    assert {row.path for row in resnet.layers} == paths | {"backbone/stem/pool"}


def test_half_the_bytes_in_bfloat16() -> None:
    wide, narrow = (
        layer_view(built("resnet18", 64, width=8, stage_sizes=(1,), dtype=dtype), (64, 64, 3)).rows[0]
        for dtype in ("float32", "bfloat16")
    )
    head = 10 * 4  # float32 in any case
    assert wide.activation_bytes - head == 2 * (narrow.activation_bytes - head)
    assert wide.flops_forward == pytest.approx(narrow.flops_forward, rel=0.02)


def test_another_image_size_keeps_the_network_and_its_fields(resnet) -> None:
    small = layer_view(built("resnet18", 224, width=8), (224, 224, 3), image_size=64)
    assert small.image_shape == (64, 64, 3)
    assert [(row.path, row.parameters, row.field) for row in small.rows] == [
        (row.path, row.parameters, row.field) for row in resnet.rows
    ]
    assert row_of(small, "backbone").output == (2, 2, 64)


def test_an_image_too_small_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="images of 16x16 are too small"):
        layer_view(built("resnet18", 224, width=8), (224, 224, 3), image_size=16)
    with pytest.raises(InputError, match="--image-size 0"):
        layer_view(built("resnet18", 224, width=8), (224, 224, 3), image_size=0)


def test_the_table_has_the_published_fields_and_totals(resnet) -> None:
    lines = as_text(resnet, depth=3).splitlines()
    cells = {line.split()[0]: line.split() for line in lines if "/" in line and not line.startswith(("One", "+"))}
    assert cells["backbone/stem/pool"][-3:] == ["11", "4", "0"]
    assert cells["backbone/stage4/block2"][-3:] == ["435", "32", "0"]
    assert cells["backbone/stage1"][2:4] == ["56x56x8", "2,368"]
    assert "backbone/stage1/block1/conv1" not in cells
    total = next(line for line in lines if line.startswith("total"))
    assert f"{resnet.rows[0].parameters:,}" in total
    assert any("0." in line and "activations, additions" in line for line in lines)


def test_json_and_csv_have_the_same_numbers(resnet, capsys, tmp_path) -> None:
    tell_layers(resnet, depth=None, as_json=True, csv_file=str(tmp_path / "layers.csv"))
    notes = json.loads(capsys.readouterr().out)
    assert notes == json.loads(json.dumps(as_dict(resnet)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "layers.csv").read_text())))
    assert [row["path"] for row in rows] == [module["path"] for module in notes["modules"]]
    for row, module in zip(rows, notes["modules"], strict=True):
        assert row["output"] == "x".join(map(str, module["output"]))
        assert row["field_size"] == ("" if module["field_size"] is None else str(module["field_size"]))
        assert float(row["flops_forward"]) == module["flops_forward"]
    assert len(as_csv(resnet, depth=1).splitlines()) == 3  # the head of the table, backbone, head


def test_a_file_that_cannot_be_written_is_told(resnet, tmp_path) -> None:
    with pytest.raises(InputError, match="No such file"):
        tell_layers(resnet, csv_file=str(tmp_path / "nowhere" / "layers.csv"))
