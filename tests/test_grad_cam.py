"""Grad-CAM against its closed form, and on a network whose evidence is known to be a bright patch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ModelConfig, Preprocessing
from jaxcnn.errors import InputError
from jaxcnn.inspection.explanation import as_seen, draw_explanation, enlarged, explain
from jaxcnn.inspection.grad_cam import check_part, grad_cam
from jaxcnn.models import build_model
from jaxcnn.network import Network


@pytest.fixture(scope="module")
def resnet() -> tuple[Any, Any]:
    model = build_model(ModelConfig(name="resnet8", width=4), (16, 16, 3), 5)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (3, 16, 16, 3))


def test_at_the_last_map_it_is_the_class_activation_map(resnet, images) -> None:
    model, variables = resnet
    labels = jnp.array([4, 0, 2])
    heat, logits = grad_cam(model, variables, images, labels, "stage3")
    maps = np.asarray(model.clone(features=("stage3",)).apply(variables, images)["stage3"])
    weights = np.asarray(variables["params"]["head"]["kernel"])[:, labels]  # [F, N]
    cam = np.einsum("nhwf,fn->nhw", maps, weights)  # Zhou et al. 2016, equation 2
    size = maps.shape[1] * maps.shape[2]
    np.testing.assert_allclose(heat, np.maximum(cam, 0) / size, atol=1e-6)
    assert (np.asarray(heat) > 0).any()
    # Equation 1 there: the mean of the map and the bias of the head make the logit.
    bias = np.asarray(variables["params"]["head"]["bias"])[labels]
    own = np.take_along_axis(np.asarray(logits), np.asarray(labels)[:, None], 1)[:, 0]
    np.testing.assert_allclose(cam.mean((1, 2)) + bias, own, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, model.apply(variables, images), atol=1e-5)


def test_at_an_early_map_it_is_the_mean_gradient_times_the_map(resnet, images) -> None:
    model, variables = resnet
    labels = jnp.array([1, 1, 3])
    heat, _ = grad_cam(model, variables, images, labels, "stage1")
    maps = model.clone(features=("stage1",)).apply(variables, images)["stage1"]
    for place in range(3):

        def logit(of: jax.Array, place: int = place) -> jax.Array:
            return model.clone(start="stage1").apply(variables, of[None])[0, labels[place]]

        weights = np.asarray(jnp.mean(jax.grad(logit)(maps[place]), axis=(0, 1)))
        expected = np.maximum(np.asarray(maps[place]) @ weights, 0)
        np.testing.assert_allclose(heat[place], expected, rtol=1e-3, atol=1e-6)


def test_images_of_a_batch_do_not_touch_each_other(resnet, images) -> None:
    model, variables = resnet
    together, _ = grad_cam(model, variables, images, jnp.array([1, 2, 3]), "stage2")
    alone, _ = grad_cam(model, variables, images[1:2], jnp.array([2]), "stage2")
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)


def bright_patch_network(channels: int) -> tuple[Network, Any]:
    """A network of class "patch", whose logit is the mean brightness above middle grey, and class "none"."""
    shape = (32, 32, channels)
    config = ModelConfig(name="vgg11", stage_sizes=(1, 1), width=4, norm="none", neck="pooled")
    model = build_model(config, shape, 2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables["params"])
    # The first channel of each map is the mean over the channels of the image, above middle grey.
    params["backbone"]["stage1"]["conv1"]["kernel"][1, 1, :, 0] = 1 / channels
    params["backbone"]["stage2"]["conv1"]["kernel"][1, 1, 0, 0] = 1
    params["head"]["kernel"][0, 0] = 5.0
    inputs = Preprocessing(shape, (0.5,) * channels, (0.25,) * channels)
    return Network(model, inputs, ("patch", "none")), {"params": params, "batch_stats": {}}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corner", [(4, 4), (20, 8), (16, 24)])
def test_the_heat_lies_on_the_patch_that_is_the_evidence(channels, corner) -> None:
    network, variables = bright_patch_network(channels)
    image = np.full((32, 32, channels), 60, np.uint8)
    row, column = corner
    image[row : row + 8, column : column + 8] = 250
    found = explain(network, variables, image)
    assert found.class_names[found.label] == "patch"
    assert found.grid == (8, 8)
    inside = np.zeros((32, 32), bool)
    inside[row : row + 8, column : column + 8] = True
    assert found.heat[inside].sum() > 0.7 * found.heat.sum()  # the rest is interpolation
    assert found.heat.max() == pytest.approx(1)
    top, left, bottom, right = found.within(0.5)
    assert abs(top - row) <= 2
    assert abs(left - column) <= 2
    assert abs(bottom - row - 8) <= 2
    assert abs(right - column - 8) <= 2


def test_a_class_without_evidence_has_no_heat(tmp_path) -> None:
    network, variables = bright_patch_network(1)
    image = np.full((32, 32, 1), 60, np.uint8)
    image[4:12, 4:12] = 250
    found = explain(network, variables, image, class_name="none")
    assert not found.heat.any()
    assert found.within() is None
    draw_explanation(found, tmp_path / "none.png", "a $ in the title")
    assert (tmp_path / "none.png").read_bytes()[:4] == b"\x89PNG"


def test_an_image_of_any_size_and_kind_is_seen_as_the_network_was_trained() -> None:
    grey, colour = Preprocessing((8, 8, 1), (0.0,), (1.0,)), Preprocessing((8, 8, 3), (0.0,) * 3, (1.0,) * 3)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert as_seen(image, grey).shape == (8, 8, 1)
    assert as_seen(image[..., :1], colour).shape == (8, 8, 3)
    same = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    np.testing.assert_array_equal(as_seen(same, grey), same)


def test_a_heat_keeps_its_place_when_it_is_enlarged() -> None:
    heat = np.zeros((4, 4))
    heat[2, 1] = 7.0
    wide = enlarged(heat, (32, 32))
    assert np.unravel_index(wide.argmax(), wide.shape)[0] in range(16, 24)
    assert np.unravel_index(wide.argmax(), wide.shape)[1] in range(8, 16)
    centre = (wide.sum(1) @ np.arange(32) / wide.sum(), wide.sum(0) @ np.arange(32) / wide.sum())
    assert centre == pytest.approx((19.5, 11.5), abs=0.1)


def test_parts_and_classes_are_checked_by_name(resnet) -> None:
    model, _ = resnet
    assert check_part(model, None) == "stage3"
    with pytest.raises(InputError, match=r"--layer 'stage4': .* did you mean 'stage"):
        check_part(model, "stage4")
    network, variables = bright_patch_network(1)
    with pytest.raises(InputError, match="--class 'pach': the run has no such class; did you mean 'patch'"):
        explain(network, variables, np.zeros((32, 32, 1), np.uint8), class_name="pach")
