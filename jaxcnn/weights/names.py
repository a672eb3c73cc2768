"""The name of each leaf here and in checkpoints from elsewhere, from one table of rules that is read both ways.

A rule pairs the path of a module with its name there; the leaves follow from their kind. `{s}` is a number, counted
from 1 here; `{s0}` is the same counted from 0, `{s2}` from 2. VGG in PyTorch numbers the layers of one sequence, so its
rules are counted off from the network.

    backbone/stage2/block1/conv1/kernel    layer2.0.conv1.weight
    backbone/stage1/conv2/bias             features.2.bias
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["torchvision", "timm", "akamaster", "keras", "jaxcnn"]
# jaxcnn: our own paths. akamaster: the CIFAR ResNets that PyTorch users pass around, with a head called `linear`.
DIALECTS: tuple[Dialect, ...] = ("torchvision", "timm", "akamaster", "keras", "jaxcnn")

Layout = Literal["same", "conv", "dense", "dense_as_conv", "map", "map_as_conv"]
"""How the axes differ; see `layouts.py`."""


@dataclass(frozen=True)
class Rule:
    """One line of a table: our module, theirs, and the layout of its kernel where the rank does not tell it."""

    ours: str
    theirs: str
    layout: Layout | None = None


@dataclass(frozen=True)
class Entry:
    """Where a leaf is found elsewhere."""

    name: str
    layout: Layout


TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
KERAS_LEAVES = {name: name for name in TORCH_LEAVES}  # what `keras_files.py` calls them

_RESNET = (
    Rule("backbone/stem/conv", "conv1"),
    Rule("backbone/stem/norm", "bn1"),
    Rule("backbone/stage{s}/block{b}/conv{i}", "layer{s}.{b0}.conv{i}"),
    Rule("backbone/stage{s}/block{b}/norm{i}", "layer{s}.{b0}.bn{i}"),
    Rule("backbone/stage{s}/block{b}/shortcut_conv", "layer{s}.{b0}.downsample.0"),
    Rule("backbone/stage{s}/block{b}/shortcut_norm", "layer{s}.{b0}.downsample.1"),
)
# What only timm has: squeeze and excitation, and ResNet-D, whose stem and shortcuts are sequences.
_SE = (Rule("backbone/stage{s}/block{b}/se/fc{i}", "layer{s}.{b0}.se.fc{i}"),)
_RESNET_D = (
    Rule("backbone/stem/conv1", "conv1.0"),
    Rule("backbone/stem/norm1", "conv1.1"),
    Rule("backbone/stem/conv2", "conv1.3"),
    Rule("backbone/stem/norm2", "conv1.4"),
    Rule("backbone/stem/conv3", "conv1.6"),
    Rule("backbone/stem/norm3", "bn1"),
    Rule("backbone/stage{s}/block{b}/shortcut_conv", "layer{s}.{b0}.downsample.1"),
    Rule("backbone/stage{s}/block{b}/shortcut_norm", "layer{s}.{b0}.downsample.2"),
)
_RESNET_V2 = (
    Rule("backbone/stem/conv", "stem.conv"),
    Rule("backbone/stage{s}/block{b}/conv{i}", "stages.{s0}.blocks.{b0}.conv{i}"),
    Rule("backbone/stage{s}/block{b}/norm{i}", "stages.{s0}.blocks.{b0}.norm{i}"),
    Rule("backbone/stage{s}/block{b}/shortcut_conv", "stages.{s0}.blocks.{b0}.downsample.conv"),
    Rule("backbone/norm", "norm"),
    Rule("head", "head.fc", "dense_as_conv"),
)
_KERAS_RESNET = (
    Rule("backbone/stem/conv", "conv1_conv"),
    Rule("backbone/stem/norm", "conv1_bn"),
    Rule("backbone/stage{s}/block{b}/conv{i}", "conv{s2}_block{b}_{i}_conv"),
    Rule("backbone/stage{s}/block{b}/norm{i}", "conv{s2}_block{b}_{i}_bn"),
    Rule("backbone/stage{s}/block{b}/shortcut_conv", "conv{s2}_block{b}_0_conv"),
    Rule("backbone/stage{s}/block{b}/shortcut_norm", "conv{s2}_block{b}_0_bn"),
    Rule("head", "predictions"),
)
_KERAS_VGG = (
    Rule("backbone/stage{s}/conv{i}", "block{s}_conv{i}"),
    Rule("neck/fc1", "fc1"),
    Rule("neck/fc2", "fc2"),
    Rule("head", "predictions"),
)
# The dense layers at the end: (with a neck, without).
_VGG_TOPS: dict[str, tuple[tuple[Rule, ...], tuple[Rule, ...]]] = {
    "torchvision": (
        (Rule("neck/fc1", "classifier.0", "map"), Rule("neck/fc2", "classifier.3"), Rule("head", "classifier.6")),
        (Rule("head", "classifier"),),
    ),
    "timm": (
        (
            Rule("neck/fc1", "pre_logits.fc1", "map_as_conv"),
            Rule("neck/fc2", "pre_logits.fc2", "dense_as_conv"),
            Rule("head", "head.fc"),
        ),
        (Rule("head", "head.fc"),),
    ),
}
_HEADS = {"torchvision": "fc", "timm": "fc", "akamaster": "linear"}
# Names by which the layers that follow the backbone are known elsewhere: they may be left out or drawn anew.
TOPS = ("fc.", "linear.", "classifier.", "head.", "pre_logits.", "predictions.", "fc1.", "fc2.")
HEADS = ("fc.", "linear.", "classifier.6.", "classifier.", "head.fc.", "predictions.", "params/head/")
IGNORED = ("num_batches_tracked",)
"""Last parts of names that no network of ours needs: PyTorch's count of batches, which only momentum=None reads."""


def is_top(path: str) -> bool:
    """Returns whether one of our leaves follows the backbone: neck or head."""
    return path.split("/")[1] in ("neck", "head")


def count_classes(tensors: Mapping[str, Any]) -> int | None:
    """Returns the outputs of the head among named tensors, by its bias or else its kernel; none where it has none."""
    for head in HEADS:
        for leaf, axis in (("bias", 0), ("weight", 0), ("kernel", -1)):
            if (tensor := tensors.get(f"{head}{leaf}")) is not None and tensor.ndim:
                return int(tensor.shape[axis])
    return None


def leaf_names(ranks: Mapping[str, int], dialect: Dialect) -> dict[str, Entry] | None:
    """Returns {our path: where it is found there}, or none where the dialect does not have such a network.

    Args:
      ranks: the number of axes of each leaf, by path (`params/head/kernel`).
      dialect: whose names.
    """
    if dialect == "jaxcnn":
        return {path: Entry(path, "same") for path in ranks}
    rules = _rules({path.split("/", 1)[1].rpartition("/")[0] for path in ranks}, dialect)
    entries = {}
    for path, rank in ranks.items():
        module, _, leaf = path.split("/", 1)[1].rpartition("/")
        found = _translate(module, rules)
        if found is None:
            return None
        name, layout = found
        if dialect == "keras":
            entries[path] = Entry(f"{name}.{KERAS_LEAVES[leaf]}", "same")
        else:
            by_rank: Layout = "conv" if rank == 4 else "dense" if rank == 2 else "same"
            entries[path] = Entry(f"{name}.{TORCH_LEAVES[leaf]}", (rank > 1 and layout) or by_rank)
    return entries


def _translate(module: str, rules: Iterable[Rule]) -> tuple[str, Layout | None] | None:
    """The name of a module there and its layout, by the first rule that fits."""
    for rule in rules:
        pattern = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(rule.ours))
        if found := re.fullmatch(pattern, module):
            numbers = {name: int(value) for name, value in found.groupdict().items()}
            from_zero = {f"{name}0": value - 1 for name, value in numbers.items()}
            from_two = {f"{name}2": value + 1 for name, value in numbers.items()}
            return rule.theirs.format(**numbers, **from_zero, **from_two), rule.layout
    return None


def _rules(modules: set[str], dialect: Dialect) -> tuple[Rule, ...]:
    """The table for the network that has these modules."""
    is_vgg = "backbone/stage1/conv1" in modules
    if dialect == "keras":
        return _KERAS_VGG if is_vgg else _KERAS_RESNET
    if is_vgg:
        top = _VGG_TOPS.get(dialect)
        return () if top is None else (*_vgg_features(modules), *top["neck/fc1" not in modules])
    if "backbone/norm" in modules:
        return _RESNET_V2 if dialect == "timm" else ()
    more = (*(_RESNET_D if "backbone/stem/conv1" in modules else ()), *_SE) if dialect == "timm" else ()
    return (*more, *_RESNET, Rule("head", _HEADS[dialect]))


def _vgg_features(modules: set[str]) -> list[Rule]:
    """The rules of VGG's `features`: convolution, perhaps norm, activation; a max-pool after each stage."""
    convs = sorted(
        tuple(map(int, found.groups()))
        for module in modules
        if (found := re.fullmatch(r"backbone/stage(\d+)/conv(\d+)", module))
    )
    has_norm = "backbone/stage1/norm1" in modules
    rules, place, stage = [], 0, 1
    for s, i in convs:
        place += s - stage  # the max-pool
        stage = s
        rules.append(Rule(f"backbone/stage{s}/conv{i}", f"features.{place}"))
        if has_norm:
            rules.append(Rule(f"backbone/stage{s}/norm{i}", f"features.{place + 1}"))
        place += 3 if has_norm else 2
    return rules
