"""What the loss looks like around a plain and a residual network (Li et al. 2018, sections 4 to 6)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.loss_slices import coarse_slices, draw_lines, draw_slice, slices
from jaxcnn.studies.panels import COLOURS, finish
from jaxcnn.studies.setting import Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.trials import Trial

BLOCKS: dict[str, Any] = {"plain": "plain", "residual": "basic"}


@dataclass(frozen=True)
class Net:
    """A kind of network at one depth, trained with each seed, and the loss around it."""

    kind: str
    name: str
    trials: tuple[Trial, ...]

    def of(self, figure: str) -> Spread:
        """Returns what was measured, by seed: "half_width", "negative" or "loss", see `measured_slices`."""
        return Spread.of([trial.measured[figure] for trial in self.trials])


def study(setting: Setting) -> Findings:
    """Returns how fast the loss rises around plain and residual networks of two depths, and where it curves down."""
    depths, width = setting.pick(quick=((8, 20), 4), cpu=((8, 32), 8), paper=((20, 56), 16))
    setting = setting.resized(quick=14, cpu=16, paper=None)  # a quarter of the arithmetic
    nets = [_net(setting, kind, depth, width) for kind in BLOCKS for depth in depths]
    classes = len(setting.trials.splits(setting.data).train.class_names)
    return Findings(
        study="optimisation",
        question="What does the loss look like around the weights of a plain and of a residual network?",
        setup=_setup(setting, nets, width),
        tables=(_table(nets),),
        claims=claims(nets),
        draw=lambda figure: draw(figure, nets, math.log(classes)),
        size=(12.0, 6.8),
        description="Left: the training loss around the weights (red) of the first seed along two random directions; "
        "at 1 the noise in a filter is as large as the filter. Right: the loss along single directions, mean of "
        "directions and seeds, and how far out it has come half of the way to chance.",
    )


def _net(setting: Setting, kind: str, depth: int, width: int) -> Net:
    config = setting.config(
        f"{kind}-{depth}",
        ModelConfig(name="resnet20", stage_sizes=((depth - 2) // 6,) * 3, width=width, block=BLOCKS[kind]),
        epochs=setting.pick(quick=15, cpu=64, paper=164),
        optim=rate(0.1),
        batch_size=setting.pick(quick=32, cpu=128, paper=128),
        per_class=setting.pick(quick=60, cpu=500, paper=None),
        every_epochs=setting.pick(quick=15, cpu=16, paper=10),
        clean=0,
    )
    measure = coarse_slices if setting.size == "quick" else slices
    return Net(kind, config.name, tuple(setting.trials.run(config.name, config, setting.seeds, measure)))


def claims(nets: Sequence[Net]) -> tuple[Claim, ...]:
    """Returns how the deep residual network compares with the deep plain one, and both with the shallow ones."""
    (plain, deep_plain), (residual, deep) = ([net for net in nets if net.kind == kind] for kind in BLOCKS)
    shares = {"plain": _shares(deep_plain, plain), "residual": _shares(deep, residual)}
    told = ", ".join(f"{kind} {share.text()}" for kind, share in shares.items())
    slow = "Around a deep residual network the loss rises more slowly than around the plain one of its depth."
    steep = "Depth makes the surface of plain networks steeper, and that of residual ones less so."
    curved = "The slice around a deep plain network curves downwards in more places."
    rises = f"{_told('half_width', *nets)} Deep to shallow: {told}."
    slower = beyond_spread(deep.of("half_width"), deep_plain.of("half_width"))
    apart, steeper = beyond_spread(shares["residual"], shares["plain"]), bool(shares["plain"].high < 1)
    more = beyond_spread(deep_plain.of("negative"), deep.of("negative"))
    return (
        Claim(slow, _told("half_width", deep_plain, deep), slower),
        Claim(steep, rises, apart and steeper),
        Claim(curved, _told("negative", deep_plain, deep), more),
    )


def _shares(deep: Net, shallow: Net) -> Spread:
    """The half-width of the deep network as a part of that of the shallow one, by seed."""
    return Spread.of(list(np.divide(deep.of("half_width").values, shallow.of("half_width").values)))


def _told(figure: str, *nets: Net) -> str:
    name = "half-width" if figure == "half_width" else "share of the slice"
    return f"{name} {', '.join(f'{net.name} {net.of(figure).text()}' for net in nets)}."


def _table(nets: Sequence[Net]) -> Table:
    rows = [
        (net.name, net.of("loss").text(), Spread.of([1 - trial.top1 for trial in net.trials]).percent(),
         net.of("half_width").text(), net.of("negative").text())
        for net in nets
    ]  # fmt: skip
    return Table(
        "slices",
        "Loss on training images at the weights; error on test images; how far out, in units of the weights, the loss "
        "has come half of the way to that of chance; share of the slice that curves downwards in some direction.",
        ("network", "loss", "test error", "half-width", "curves downwards"),
        tuple(rows),
    )


def _setup(setting: Setting, nets: Sequence[Net], width: int) -> str:
    trial, first = nets[0].trials[0], nets[0].trials[0].measured
    cuts = setting.pick(
        quick="600 digits of 14x14 pixels, other depths and 4 channels instead of CIFAR-10 and 16.",
        cpu="5,000 images of 16x16 pixels for 50,000 of 32x32; 8 channels for 16; 64 epochs for 300; 32 layers for "
        "56, with which a plain network hardly trains in so many steps.",
        paper="164 epochs for 300, on a cosine; slices have 512 images for 50,000.",
    )
    return (
        f"CIFAR ResNets, {width} channels in the first stage, and the same without the additions, trained without "
        f"augmentation: {trial.epochs[-1]:g} epochs, {len(trial.objectives):,} steps of SGD with Nesterov momentum 0.9 "
        f"at 0.1, decay 1e-4, {len(nets[0].trials)} seeds. Directions are random and scaled filter by filter; biases "
        f"and norm parameters stay. A slice has {len(first['grid'])} points along each of two directions, lines go "
        f"along {len(first['lines'])}. Batch norm uses the statistics of the images that the loss is taken of; the "
        f"paper keeps the running ones, which fit no other weights than the network's own. Cut: {cuts}"
    )


def draw(figure: Any, nets: Sequence[Net], chance: float) -> None:
    """Draws a slice of each network, lines, and half-widths."""
    left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1))
    maps, levels = left.subplots(2, 2, sharex=True, sharey=True), np.linspace(0, 1.5 * chance, 16).tolist()
    for axes, net in zip(maps.flat, nets, strict=True):
        filled = draw_slice(axes, net.trials[0], net.name, levels)
    left.colorbar(filled, ax=maps, label="cross-entropy (nats)", shrink=0.8, format="%.1f")
    lines, widths = right.subplots(2, 1)
    for place, (net, colour) in enumerate(zip(nets, COLOURS, strict=False)):
        draw_lines(lines, net.trials, colour, net.name)
        values = net.of("half_width").values
        widths.plot(values, [place] * len(values), "o", color=colour, alpha=0.7)
    lines.axhline(chance, color="#777777", linestyle=":", label="chance")
    finish(lines, xlabel="distance along a direction", ylabel="cross-entropy (nats)", ylim=(0, 2 * chance),
           xticks=(-1, -0.5, 0, 0.5, 1))  # fmt: skip
    finish(widths, xlabel="half-width", yticks=range(len(nets)), yticklabels=[net.name for net in nets], xlim=(0, None))
    widths.invert_yaxis()
