"""The whole network: logits, features, pooled features, another head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import InputError
from jaxcnn.models import VGG, Classifier, PreActBlock, ResNet, VGGNeck, replace_head
from jaxcnn.models.classifier import output_at
from jaxcnn.models.conv import Conv
from jaxcnn.models.norms import LayerNorm

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
RESNET = Classifier(ResNet((1, 1), width=8, stem="small"), num_classes=5)
PREACT = Classifier(ResNet((1, 1), PreActBlock, width=8, stem="small", norm=LayerNorm()), num_classes=5)
VGG_DENSE = Classifier(VGG((1, 1), width=8), num_classes=5, neck=VGGNeck(features=6))


@pytest.fixture(scope="module")
def variables():
    """Random numbers for all leaves: quicker than to compile the initialisers."""
    shapes = jax.eval_shape(RESNET.init, jax.random.key(0), IMAGES)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)


def output(model, variables, x=IMAGES, **options):
    return jax.jit(lambda v, x: model.apply(v, x, **options))(variables, x)


def shape_of(model, x=IMAGES):
    return jax.eval_shape(model.init_with_output, jax.random.key(0), x)[0]


def test_paths_begin_with_backbone_neck_and_head(variables):
    assert set(variables["params"]) == {"backbone", "head"}
    _, dense = jax.eval_shape(VGG_DENSE.init_with_output, jax.random.key(0), IMAGES)
    assert set(dense["params"]) == {"backbone", "neck", "head"}


def test_features_are_the_named_maps_of_the_same_variables(variables):
    maps = output(RESNET.clone(features=("stage2", "stem")), variables)
    assert {name: leaf.shape for name, leaf in maps.items()} == {"stage2": (2, 4, 4, 16), "stem": (2, 8, 8, 8)}
    head = variables["params"]["head"]
    logits = np.asarray(maps["stage2"]).mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(output(RESNET, variables), logits, rtol=1e-4, atol=1e-5)


def test_nothing_after_the_last_named_map_is_computed():
    shapes = jax.eval_shape(RESNET.clone(features=("stage1",)).init, jax.random.key(0), IMAGES)
    assert set(shapes["params"]["backbone"]) == {"stem", "stage1"}


def test_a_preactivation_network_has_its_last_norm_as_a_feature():
    maps = shape_of(PREACT.clone(features=("stage2", "norm")))
    assert maps["stage2"].shape == maps["norm"].shape == (2, 4, 4, 16)


def test_an_unknown_feature_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"features='stage3'.*'stage2'"):
        shape_of(RESNET.clone(features=("stage3",)))


def test_no_classes_give_the_pooled_features(variables):
    maps = output(RESNET.clone(features=("stage2",)), variables)["stage2"]
    pooled = output(RESNET.clone(num_classes=0), variables)
    assert pooled.shape == (2, RESNET.num_features)
    np.testing.assert_allclose(pooled, np.asarray(maps).mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert shape_of(VGG_DENSE.clone(num_classes=0)).shape == (2, VGG_DENSE.num_features) == (2, 6)


@pytest.mark.parametrize("num_classes", [0, 5])
def test_outputs_are_float32_when_the_network_computes_in_bfloat16(num_classes):
    def conv(*args, **options):
        return Conv(*args, dtype=jnp.bfloat16, **options)

    for backbone, neck in ((RESNET.backbone, None), (VGG_DENSE.backbone, VGGNeck(features=6, dtype=jnp.bfloat16))):
        model = Classifier(backbone.clone(conv=conv), num_classes, neck)
        assert shape_of(model).dtype == jnp.float32
        assert shape_of(model.clone(features=("stage1",)))["stage1"].dtype == jnp.bfloat16


def test_a_replaced_head_leaves_all_else(variables):
    model, new = replace_head(RESNET, variables, 7, jax.random.key(1))
    assert model.num_classes == 7
    assert output(model, new).shape == (2, 7)
    assert new["params"]["backbone"] is variables["params"]["backbone"]
    assert new["batch_stats"] is variables["batch_stats"]
    assert variables["params"]["head"]["kernel"].shape == (16, 5), "the given variables are not changed"


def test_a_head_can_be_taken_away_and_given_to_a_network_without_one(variables):
    model, headless = replace_head(RESNET, variables, 0, jax.random.key(1))
    assert set(headless["params"]) == {"backbone"}
    model, new = replace_head(model, headless, 3, jax.random.key(1))
    assert output(model, new).shape == (2, 3)


def test_images_smaller_than_the_total_stride_are_told_with_the_size_that_would_do():
    model = Classifier(ResNet((1, 1), width=8, stem="imagenet"), num_classes=5)
    assert model.backbone.total_stride == 8
    shape_of(model, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"7x8 are too small.*at least 8x8"):
        shape_of(model, jnp.zeros((1, 7, 8, 3)))


def test_dropout_is_before_the_head_and_off_in_inference(variables):
    model = RESNET.clone(dropout=0.5)
    np.testing.assert_array_equal(output(model, variables), output(RESNET, variables))

    def loss(params):
        rngs = {"dropout": jax.random.key(0)}
        model = RESNET.clone(dropout=0.999999)
        logits, _ = model.apply({**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"], rngs=rngs)
        return logits.sum()

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient["backbone"])), "all features are dropped"
    assert np.all(gradient["head"]["bias"] != 0)


@pytest.mark.parametrize("model", [RESNET, PREACT, VGG_DENSE], ids=["resnet", "preact", "vgg with neck"])
def test_what_goes_on_from_any_point_has_the_logits_of_the_whole(model):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
    logits = output(model, variables)
    assert model.points[-1] == "pooled"
    for point in model.points:
        features = jax.jit(lambda v, x, point=point: output_at(model, v, x, point))(variables, IMAGES)
        np.testing.assert_allclose(output(model.clone(start=point), variables, features), logits, rtol=1e-6)


def test_nothing_before_the_start_is_computed():
    shapes = jax.eval_shape(VGG_DENSE.init, jax.random.key(0), IMAGES)["params"]
    late = {"backbone": {"stage2": shapes["backbone"]["stage2"]}, "neck": shapes["neck"], "head": shapes["head"]}
    maps = jax.ShapeDtypeStruct((2, 4, 4, 8), np.float32)
    logits = jax.eval_shape(VGG_DENSE.clone(start="stage1").apply, {"params": late}, maps)
    assert logits.shape == (2, 5)


def test_parts_are_the_branches_of_the_parameter_tree_in_order():
    for model in (RESNET, PREACT, VGG_DENSE):
        params = jax.eval_shape(model.init, jax.random.key(0), IMAGES)["params"]
        branches = {f"backbone/{name}" for name in params["backbone"]} | (params.keys() - {"backbone"})
        assert set(model.part_paths) == branches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "stage3"}, r"start='stage3'.*'stage2'"),
        ({"start": "stage2", "features": ("stage1",)}, "comes before"),
        ({"start": "stage2", "features": ("stage2",)}, "comes before"),
        ({"start": "pooled", "features": ("stage2",)}, "comes before"),
    ],
)
def test_a_point_that_is_not_reached_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        shape_of(RESNET.clone(**options))
