"""What each stage of a pretrained network is good for: a linear probe on each, on its own task and on others.

Early stages serve any task, late ones the task they were trained for (Yosinski et al. 2014). Probes on the same network
with random weights tell how much of it is the architecture's. From few images a class a probe on a frozen network is
held against fine-tuning it, and against training from nothing.
"""

from collections.abc import Sequence

from jaxcnn.studies import few_images as methods
from jaxcnn.studies.few_images import Few, Trained, from_few
from jaxcnn.studies.findings import Claim, Findings
from jaxcnn.studies.pretraining import EPOCHS, pretrained, source_config
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.stage_probes import PRETRAINED, RANDOM, Found, Probed, best_point, weighed
from jaxcnn.studies.transfer_report import Curve, draw, few_table, points_table
from jaxcnn.studies.transfer_tasks import Transfer, short, task_name, transfer_of

COUNTS = {"quick": (5, 20, 80), "cpu": (5, 100), "paper": (5, 20, 100, 500)}
"""Training images a class of the curve."""
STEPS = {"quick": 100, "cpu": 300, "paper": 1000}
"""Of each training on few images."""


def study(setting: Setting, transfer: Transfer | None = None) -> Findings:
    """Returns the probes of each point of a network; no transfer: `transfer_of` the setting's data.

    Raises:
      InputError: data or weights that do not fit.
    """
    transfer = transfer or transfer_of(setting)
    places = [transfer.init_from or ""]
    if transfer.init_from is None:
        places = pretrained(setting, source_config(setting, transfer))
    first = weighed(places, transfer.model, transfer.targets[0], setting.seeds)
    curves, targets = [], []
    if transfer.source is not None:
        task = first.probed(transfer.source, task_name(transfer.source), (PRETRAINED,))
        curves.append(_curve(task.name, PRETRAINED, True, task.probes(PRETRAINED)))
    for data in transfer.targets:
        target = weighed(places, transfer.model, data, setting.seeds).probed(data, task_name(data))
        probes = {kind: target.probes(kind) for kind in (PRETRAINED, RANDOM)}
        curves += [_curve(target.name, kind, False, found) for kind, found in probes.items()]
        targets.append((target, {kind: best_point(found) for kind, found in probes.items()}))
    target, best = targets[0]
    trained = Trained(transfer.model, places, target, first, STEPS[setting.size])
    few = from_few(setting, target, (best[PRETRAINED], best[RANDOM]), COUNTS[setting.size],
                   trained if transfer.trains else None)  # fmt: skip
    return Findings(
        study="transferability",
        question="What is each stage of a pretrained network good for, on its own task and on another?",
        setup=_setup(setting, transfer, best, target),
        tables=(points_table(target.points, curves), few_table(few)),
        claims=(*_claims_of_stages(target.points, curves), *_claims_of_few(few)),
        draw=lambda figure: draw(figure, target.points, curves, few),
        size=(13.0, 4.6),
        description="Left: what a linear probe reads at each point of the network: on the task of the weights (grey), "
        "on others, and there from random weights (dotted). Right: the first target from few images a class.",
    )


def _curve(name: str, kind: str, is_source: bool, found: list[Found]) -> Curve:
    return Curve(name, kind, is_source, tuple(Spread.of([one[point][1] for one in found]) for point in found[0]))


def _setup(setting: Setting, transfer: Transfer, best: dict[str, str], target: Probed) -> str:
    own = transfer.init_from is None
    weights = (
        f"trained on the source for {EPOCHS[setting.size]} epochs, a network a seed"
        if own
        else short(transfer.init_from or "")
    )
    few = (
        f"From few images, other draws for each seed, batches of {methods.BATCH} at most: fine-tuned, all of the "
        f"network at {methods.TUNING_RATE}; from scratch at {methods.SCRATCH_RATE}; both {STEPS[setting.size]} steps, "
        "normalised by the source's statistics."
        if transfer.trains
        else "Networks are neither fine-tuned nor trained from scratch."
    )
    return (
        f"{transfer.model.name}{'' if transfer.model.width is None else f', width {transfer.model.width}'}, {weights}; "
        f"random weights and draws by seeds {setting.seeds}. First target: {target.name}, {len(target.labels):,} "
        f"images to train on, {len(target.validation_labels):,} to measure on. Probes: maps averaged over height and "
        "width (pooled is what the head sees), standardised; logistic regression, its penalty chosen on a fifth of the "
        f"training images. Few images are read from {best[PRETRAINED]} of the pretrained and {best[RANDOM]} of the "
        f"random networks, which that fifth chose. {few}"
    )


def _claims_of_stages(points: Sequence[str], curves: Sequence[Curve]) -> list[Claim]:
    """Late ones specific, early ones general: for each target."""
    source = next((curve for curve in curves if curve.is_source), None)
    claims = []
    for curve in (one for one in curves if not one.is_source and one.kind == PRETRAINED):
        if source is not None:
            claims.append(Claim(
                f"Late stages are specific: the last one adds more to the task of the weights than to {curve.name}.",
                f"points from {points[-2]} to {points[-1]}: {source.gain().text(100, '.1f')} on {source.name}, "
                f"{curve.gain().text(100, '.1f')} on {curve.name}.",
                beyond_spread(source.gain(), curve.gain()),
            ))  # fmt: skip
        control = next(one for one in curves if one.kind == RANDOM and one.name == curve.name)
        place = max(range(len(points)), key=[spread.mean for spread in curve.top1].__getitem__)
        other = max(control.top1, key=lambda spread: spread.mean)
        claims.append(Claim(
            f"What stages have learned is general: {curve.name} is read better from them than from random weights.",
            f"{points[place]} {curve.top1[place].percent()}, random at its best {other.percent()}.",
            beyond_spread(curve.top1[place], other),
        ))  # fmt: skip
    return claims


def _claims_of_few(curve: Sequence[Few]) -> list[Claim]:
    trained = [few for few in curve if methods.TUNED in few.top1]
    if not trained:
        return []
    least, most = trained[0], trained[-1]

    def claim(statement: str, few: Few, higher: str, *others: str) -> Claim:
        numbers = ", ".join(f"{name} {few.top1[name].percent()}" for name in (higher, *others))
        verdicts = [beyond_spread(few.top1[higher], few.top1[other]) for other in others]
        supported = None if None in verdicts else all(verdicts)
        return Claim(statement, f"{few.count} images a class: {numbers}.", supported)

    return [
        claim(
            "From the fewest images a frozen network is better than one from scratch.",
            least,
            methods.FROZEN,
            methods.SCRATCH,
        ),
        claim(
            "From the fewest images a frozen network is better than a fine-tuned one.",
            least,
            methods.FROZEN,
            methods.TUNED,
        ),
        claim("With more images it is better to fine-tune than to freeze.", most, methods.TUNED, methods.FROZEN),
        claim("A pretrained start is worth more than none with more images too.", most, methods.TUNED, methods.SCRATCH),
    ]
