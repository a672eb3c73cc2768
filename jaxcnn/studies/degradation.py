"""Degradation: plain and residual networks of equal parameters, deeper and deeper (He et al. 2015, section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxcnn.config import ModelConfig
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.layer_gradients import at_both_ends, draw_gradients
from jaxcnn.studies.panels import SHADES, draw_errors, draw_spreads, finish
from jaxcnn.studies.setting import AS_THEY_ARE, HE_2015, Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.trials import Trial

BLOCKS: dict[str, Any] = {"plain": "plain", "residual": "basic"}
PUBLISHED = {
    ("plain", 20): 9.5, ("plain", 56): 13.5,
    ("residual", 20): 8.75, ("residual", 32): 7.51, ("residual", 44): 7.17, ("residual", 56): 6.97,
}  # fmt: skip
"""Test error in percent on CIFAR-10, table 6; of plain networks read off figure 6."""


@dataclass(frozen=True)
class Net:
    """A kind of network at one depth, trained with each seed."""

    kind: str
    depth: int
    num_parameters: int
    name: str
    trials: tuple[Trial, ...]

    @property
    def error(self) -> Spread:
        """In training, at the end."""
        return Spread.of([1 - trial.train_top1 for trial in self.trials])

    def gradient(self, when: str) -> Spread:
        """Norms of the first layer's gradient, "initial" or "final"."""
        return Spread.of([trial.measured[when][0] for trial in self.trials])


def study(setting: Setting) -> Findings:
    """Returns training and test error of plain and residual networks by depth, and gradients by layer."""
    depths, width = setting.pick(quick=((8, 20, 44), 4), cpu=((20, 44), 8), paper=((20, 32, 44, 56), 16))
    setting = setting.resized(quick=14, cpu=16, paper=None)  # a quarter of the arithmetic
    nets = [_net(setting, kind, depth, width) for kind in ("plain", "residual") for depth in depths]
    return Findings(
        study="degradation",
        question="Why do plain networks get worse when they get deeper, and residual ones do not?",
        setup=_setup(setting, nets, width),
        tables=(_table(nets, {} if setting.size == "quick" else PUBLISHED),),
        claims=claims(nets),
        draw=lambda figure: draw(figure, nets),
        size=(11.0, 8.2),
        description="Above: error in training (solid) and on test images (dashed), mean of the seeds. Below: the error "
        "in training at the end, a dot a seed; and the gradient in each layer's kernel before the first step.",
    )


def _net(setting: Setting, kind: str, depth: int, width: int) -> Net:
    stages = ((depth - 2) // 6,) * 3
    config = setting.config(
        f"{kind}-{depth}",
        ModelConfig(name="resnet20", stage_sizes=stages, width=width, block=BLOCKS[kind]),
        epochs=setting.pick(quick=12, cpu=64, paper=164),
        optim=rate(0.1),
        batch_size=setting.pick(quick=32, cpu=128, paper=128),
        augment=setting.pick(quick=AS_THEY_ARE, cpu=AS_THEY_ARE, paper=HE_2015),
        per_class=setting.pick(quick=60, cpu=500, paper=None),
        every_epochs=setting.pick(quick=1, cpu=4, paper=4),
        clean=0,  # the error in training is that of training mode
    )
    trials = setting.trials.run(config.name, config, setting.seeds, at_both_ends)
    return Net(kind, depth, setting.trials.job(config).network.num_parameters, config.name, tuple(trials))


def claims(nets: Sequence[Net]) -> tuple[Claim, ...]:
    """Returns what the numbers say of the deepest networks beside the shallowest ones."""
    (plain, *_, deep_plain), (residual, *_, deep) = ([net for net in nets if net.kind == kind] for kind in BLOCKS)
    worse = beyond_spread(deep.error, residual.error)
    better, equal = beyond_spread(deep_plain.error, deep.error), deep_plain.num_parameters == deep.num_parameters
    grows = beyond_spread(deep_plain.gradient("initial"), plain.gradient("initial"))
    counts = f"{deep_plain.num_parameters:,} and {deep.num_parameters:,} parameters"
    gradients = (f"{net.name} {net.gradient('initial').text()}" for net in (plain, deep_plain))
    first = "A deeper plain network is worse in training, not only on new images."
    second = "A deeper residual network is no worse in training than a shallow one, beyond the spread."
    third = "Of two deep networks with equally many parameters, the one with additions is better in training."
    fourth = "Gradients do not vanish: at the start the first layer's, with batch norm, grow with depth in plain nets."
    return (
        Claim(first, _errors(plain, deep_plain), beyond_spread(deep_plain.error, plain.error)),
        Claim(second, _errors(residual, deep), None if worse is None else not worse),
        Claim(third, f"{counts}; {_errors(deep_plain, deep)}", better and equal),
        Claim(fourth, f"norm {', '.join(gradients)}.", grows),
    )


def _errors(*nets: Net) -> str:
    return f"error in training {', '.join(f'{net.name} {net.error.percent()}' for net in nets)}."


def _table(nets: Sequence[Net], published: dict[tuple[str, int], float]) -> Table:
    rows = [
        (net.name, net.num_parameters, net.error.percent(), test.percent(),
         published.get((net.kind, net.depth)), net.gradient("initial").text(), net.gradient("final").text())
        for net in nets
        for test in [Spread.of([1 - trial.top1 for trial in net.trials])]
    ]  # fmt: skip
    return Table(
        "errors",
        "Error at the end of training, in training mode on the last epoch's images and on test images; the latter in "
        "the paper, in percent; norm of the loss gradient of the first convolution, before and after training.",
        ("network", "parameters", "train error", "test error", "paper", "gradient, start", "gradient, end"),
        tuple(rows),
    )


def _setup(setting: Setting, nets: Sequence[Net], width: int) -> str:
    trial, depths = nets[0].trials[0], ", ".join(str(net.depth) for net in nets if net.kind == "plain")
    cuts = setting.pick(
        quick="600 digits of 14x14 pixels instead of CIFAR-10, no augmentation, 4 channels for 16, batches of 32.",
        cpu="5,000 images of 16x16 pixels for 50,000 of 32x32, without augmentation, so that 64 epochs are a twentieth "
        "of the steps; 8 channels for 16. Errors on test images are far from the paper's, those in training are not.",
        paper="Nothing but the schedule: a cosine after an epoch of warm-up, where the paper divides by 10 twice.",
    )
    return (
        f"CIFAR ResNets of {depths} layers, {width} channels in the first stage, shortcuts without parameters "
        "(option A), beside the same networks without the additions. Batch norm, Kaiming initialisation, SGD with "
        "Nesterov momentum 0.9 at 0.1, decay 1e-4; the paper's augmentation is pad, crop and flip. "
        f"{trial.epochs[-1]:g} epochs, {len(trial.objectives):,} steps, {len(nets[0].trials)} seeds. Cut: {cuts}"
    )


def draw(figure: Any, nets: Sequence[Net]) -> None:
    """Draws errors over the epochs and by depth, and gradients by layer."""
    (plain, residual), (ends, gradients) = figure.subplots(2, 2)
    depths = sorted({net.depth for net in nets})
    colours = dict(zip(depths, SHADES, strict=False))
    for net in nets:
        draw_errors(plain if net.kind == "plain" else residual, net.trials, colours[net.depth], f"{net.depth} layers")
        if net.depth in (depths[0], depths[-1]):
            draw_gradients(gradients, net.trials, colours[net.depth], net.name, "-" if net.kind == "residual" else "--")
    for kind, axes in (("plain", plain), ("residual", residual)):
        finish(axes, xlabel="epoch", ylabel="error (%)", title=f"{kind}: training solid, test dashed", ylim=(0, 100))
    kinds = {kind: {net.depth: net.error for net in nets if net.kind == kind} for kind in ("residual", "plain")}
    draw_spreads(ends, kinds, 100)
    finish(ends, xlabel="layers", ylabel="error (%)", title="training error at the end", xticks=depths)
    finish(gradients, xlabel="place of the layer (0: first, 1: last)", ylabel="norm", title="gradient at the start")
