"""The tables of the study `receptive-field`."""

from jaxcnn.inspection.effective_field import fit_gaussian, random_walk
from jaxcnn.studies.findings import Table
from jaxcnn.studies.seen_pixels import Seen, Stack, Trained
from jaxcnn.studies.spread import Spread


def stack_table(stacks: list[Stack]) -> Table:
    """Returns a row a stack of convolutions."""
    rows = [
        (" + ".join(f"{side}x{side}" for side in stack.sides), stack.theory.size, stack.measured, stack.parameters,
         f"{stack.parameters // stack.channels**2} C²", stack.flops and stack.flops / 1e6, len(stack.sides))
        for stack in stacks
    ]  # fmt: skip
    head = ("convolutions", "sees px", "measured px", "weights", "in C²", "MFLOP at 32 px", "activations")
    return Table(
        "stacks", f"Stacks of convolutions of C = {stacks[0].channels} channels, an image of 32x32.", head, tuple(rows)
    )


def network_table(networks: dict[str, list[Seen]], published: dict[str, dict[str, int]]) -> Table:
    """Returns a row a map of a network."""
    rows = [
        (name, seen.part, published[name].get(seen.part), seen.theory.size,
         seen.measured[0][1] - seen.measured[0][0] + 1, seen.theory.stride,
         Spread.of(seen.sigmas).mean, 100 * Spread.of(seen.shares).mean)
        for name, fields in networks.items() for seen in fields
    ]  # fmt: skip
    head = ("network", "map", "published", "from the program", "with a gradient", "stride", "sigma", "counts %")
    caption = (
        "Fields along an axis in pixels, at random weights: sigma is the standard deviation of the squared gradient, "
        "and the last column how much of the field's area holds 95.45 % of it."
    )
    return Table("networks", caption, head, tuple(rows))


def growth_table(growth: dict[int, Seen]) -> Table:
    """Returns a row a depth."""
    rows = [
        (depth, seen.theory.size, Spread.of(seen.sigmas).text(), random_walk([(3, 1)] * depth),
         fit_gaussian(seen.heats.mean(0)).r2, Spread.of(seen.shares).text(100))
        for depth, seen in growth.items()
    ]  # fmt: skip
    head = ("3x3 layers", "field", "sigma", "sqrt(2 n / 3)", "R² of a Gaussian", "counts %")
    return Table(
        "growth", "Plain stacks with ReLU at random weights; mean and deviation over seeds.", head, tuple(rows)
    )


def trained_table(trained: list[Trained]) -> Table:
    """Returns a row a map."""
    rows = []
    for part in trained[0].pixels:
        before, after = (Spread.of([of.pixels[part][when] for of in trained]).text() for when in (0, 1))
        rows.append((part, before, after, trained[0].size))
    caption = "Pixels of the image that hold 95.45 % of the squared gradient of the centre unit of a map."
    return Table("trained", caption, ("map", "before training", "after", "of"), tuple(rows))
