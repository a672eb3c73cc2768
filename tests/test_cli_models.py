"""`jaxcnn models`."""

import json

import pytest

from jaxcnn.cli import main
from jaxcnn.models import NETWORKS, Conv
from jaxcnn.models.cost import Cost, cost_of

# `_ops` in torchvision's weights.
PUBLISHED_GFLOPS = {
    "vgg11": 7.609,
    "resnet18": 1.814,
    "resnet50": 4.089,
    "wide_resnet50_2": 11.398,
    "resnext50_32x4d": 4.230,
}


def rows(capsys, *arguments):
    assert main(["models", "--json", *arguments]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}


def test_multiply_adds_are_those_torchvision_publishes(capsys):
    found = rows(capsys, *PUBLISHED_GFLOPS)
    for name, gflops in PUBLISHED_GFLOPS.items():
        assert found[name]["gflops"] == pytest.approx(gflops, abs=0.001)


def test_cost_of_one_convolution_is_counted_by_hand():
    assert cost_of(Conv(6, 3, stride=2, groups=2), (8, 8, 4)) == Cost(3 * 3 * 2 * 6, 4 * 4 * 6 * 3 * 3 * 2)


def test_a_row_holds_parameters_input_classes_and_paper(capsys):
    row = rows(capsys, "resnet20")["resnet20"]
    assert row["parameters"] == NETWORKS["resnet20"].parameters
    assert (row["input"], row["classes"]) == ("32x32x3", 10)
    assert "arXiv:1512.03385" in row["paper"]


def test_a_name_selects_the_networks_that_contain_it(capsys):
    assert set(rows(capsys, "wrn", "resnet8")) == {"wrn_16_4", "wrn_28_10", "resnet8"}


def test_the_table_has_a_line_a_network(capsys):
    assert main(["models", "resnet20", "wrn_16"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "parameters", "GFLOPs", "input", "classes", "paper"]
    assert [line.split()[:2] for line in lines] == [["resnet20", "269,722"], ["wrn_16_4", "2,748,890"]]


def test_an_unknown_name_is_told_in_one_line_with_the_nearest(capsys):
    assert main(["models", "resnt18"]) == 2
    assert capsys.readouterr().err.startswith("error: no network has 'resnt18' in its name; did you mean 'resnet18'")
