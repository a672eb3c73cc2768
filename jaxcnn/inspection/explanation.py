"""An image explained: what the network takes it for, and where in it the evidence lies, as numbers and as a PNG."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import Preprocessing
from jaxcnn.curves import save
from jaxcnn.data.decode import convert_channels, resize_and_centre_crop
from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.inspection.grad_cam import check_part, grad_cam
from jaxcnn.network import Network
from jaxcnn.runtime import compiler_options

_CHOSEN, _OTHER = "#ee6677", "#9db4cc"


@dataclass(frozen=True)
class Explanation:
    """Grad-CAM of one image.

    Attributes:
      image: uint8 [H, W, C], as the network sees it, before normalisation.
      label: the class whose evidence is shown.
      part: whose map was looked at, and `grid`, the height and width of that map.
      heat: float [H, W] in 0..1, the map enlarged to the image; 1 is the strongest evidence, all 0: there is none.
      class_names: of all classes.
      probabilities: float [K].
    """

    image: np.ndarray
    label: int
    part: str
    grid: tuple[int, int]
    heat: np.ndarray
    class_names: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def top(self) -> list[int]:
        """The classes, the most probable first."""
        return [int(label) for label in np.argsort(-self.probabilities, kind="stable")]

    def within(self, share: float = 0.5) -> tuple[int, int, int, int] | None:
        """Returns (top, left, bottom, right) in pixels of where the heat is at least `share`; none: there is none."""
        rows, columns = np.nonzero(self.heat >= share)
        if not len(rows):
            return None
        return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


def as_seen(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns uint8 [H, W, C] of a network's size from an image of any: channels made the same, resized, cropped."""
    height, width, channels = preprocessing.image_shape
    return resize_and_centre_crop(convert_channels(image, channels), height, width, preprocessing.crop_share)


def explain(
    network: Network, variables: Any, image: np.ndarray, *, class_name: str | None = None, part: str | None = None
) -> Explanation:
    """Returns where in an image the evidence for a class lies.

    Args:
      network: with its preprocessing and class names.
      variables: {"params", "batch_stats"}.
      image: uint8 [H, W, C] of any size.
      class_name: none: the class that the network predicts.
      part: of the backbone, whose map is looked at; none: the last.

    Raises:
      InputError: no such class, no such part, or logits or evidence that are not finite.
    """
    part = check_part(network.model, part)
    label = None if class_name is None else label_of(class_name, network.class_names)
    seen = as_seen(image, network.preprocessing)

    def run(variables: Any, images: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = network.normalise(images)
        predicted = jnp.argmax(jnp.asarray(network.model.apply(variables, x, train=False)), axis=-1)
        heat, logits = grad_cam(network.model, variables, x, jnp.where(label < 0, predicted, label), part)
        return heat[0], jax.nn.softmax(logits)[0]

    given = jnp.asarray([-1 if label is None else label])
    found = jax.jit(run, compiler_options=compiler_options())(variables, seen[None], given)
    heat, probabilities = map(np.asarray, found)
    if not np.isfinite(probabilities).all() or not np.isfinite(heat).all():
        raise InputError("what the network makes of it is not finite: see jaxcnn inspect RUN --sort -nonfinite")
    return Explanation(
        image=seen,
        label=int(probabilities.argmax()) if label is None else label,
        part=part,
        grid=(heat.shape[0], heat.shape[1]),
        heat=enlarged(heat, seen.shape[:2]),
        class_names=network.class_names,
        probabilities=probabilities,
    )


def label_of(class_name: str, class_names: tuple[str, ...]) -> int:
    """Returns the label of a class; raises InputError where there is none of this name."""
    if class_name not in class_names:
        raise InputError(f"--class {class_name!r}: the run has no such class; {did_you_mean(class_name, class_names)}")
    return class_names.index(class_name)


def enlarged(heat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a map [H', W'] of values of at least 0, interpolated to `shape` and divided by its maximum."""
    import cv2

    wide = cv2.resize(heat.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return wide / wide.max() if wide.max() > 0 else wide


def draw_explanation(explanation: Explanation, path: Path, title: str = "", top: int = 5) -> None:
    """Draws the image, the heat over it and the most probable classes to a PNG, written whole.

    Args:
      explanation: what to draw.
      path: file to write.
      title: heading, such as the name of the image's file.
      top: classes to show; the explained one is shown in any case.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.2, 3.9), layout="constrained")
    plain, over, bars = figure.subplots(1, 3, width_ratios=(1, 1.12, 1.05))
    _show(plain, explanation.image)
    plain.set_title(f"as the network sees it: {'x'.join(map(str, explanation.image.shape))}", fontsize=9)
    _show(over, explanation.image)
    shade = over.imshow(explanation.heat, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.5 * explanation.heat)
    where = f"{explanation.part} ({explanation.grid[0]}x{explanation.grid[1]})"
    name = explanation.class_names[explanation.label]
    nothing = "" if explanation.heat.any() else ": none of the map speaks for it"
    over.set_title(f"evidence for {name} in {where}{nothing}", fontsize=9, parse_math=False)
    figure.colorbar(shade, ax=over, shrink=0.8).set_label("Grad-CAM, share of its maximum", fontsize=8)
    _draw_classes(bars, explanation, top)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    save(figure, path)


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])


def _draw_classes(axes: Any, explanation: Explanation, top: int) -> None:
    shown = explanation.top[:top]
    shown += [explanation.label] if explanation.label not in shown else []
    shares = [100 * float(explanation.probabilities[label]) for label in shown]
    colours = [_CHOSEN if label == explanation.label else _OTHER for label in shown]
    places = range(len(shown))
    axes.barh(places, shares, color=colours, height=0.62)
    axes.set_yticks(places, [explanation.class_names[label] for label in shown], fontsize=9, parse_math=False)
    for tick, label in zip(axes.get_yticklabels(), shown, strict=True):
        tick.set_fontweight("bold" if label == explanation.label else "normal")
    for place, share in zip(places, shares, strict=True):
        at, side = (share - 1.5, "right") if share > 80 else (share + 1.5, "left")  # within the axes
        axes.text(at, place, f"{share:.1f} %", va="center", ha=side, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="probability (%)")
    axes.set_title("what it is taken for", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
