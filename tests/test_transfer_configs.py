"""The configs that start from trained weights: what they freeze and keep is there in their networks."""

from pathlib import Path

import pytest

from jaxcnn.config import Preprocessing
from jaxcnn.config_reader import load_config
from jaxcnn.feature_cache.points import point_of
from jaxcnn.network import build_network
from jaxcnn.training.learning_rates import factors_of
from jaxcnn.training.partition import check_phases, first_phases, phase_rules

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize(
    ("name", "first_trainable", "phases", "point"),
    [
        ("clothing_probe_vgg16", {"head"}, 1, "pooled"),
        ("clothing_finetune_vgg16", {"head", "backbone/stage5"}, 1, "stage4"),
        ("fashion_probe_resnet56", {"head"}, 1, "pooled"),
        ("pets_finetune_resnet50", {"head"}, 2, None),
        ("flowers_finetune_resnet50", {"head"}, 2, None),
    ],
)
def test_a_transfer_config_trains_what_it_says(name, first_trainable, phases, point) -> None:
    config = load_config(CONFIGS / f"{name}.py")
    side = config.data.image_size
    assert side is not None
    network = build_network(config, Preprocessing((side, side, 3), (0.5,) * 3, (0.5,) * 3), tuple("abcdefghij"))
    params, rules = network.shapes["params"], phase_rules(config.freeze, config.unfreeze)
    check_phases(params, rules, config.train.epochs)
    first = first_phases(params, [rule for _, rule in rules])
    parts = network.model.part_paths
    early = {next(part for part in parts if path.startswith(f"{part}/")) for path, at in first.items() if at == 0}
    assert early == first_trainable
    assert len(rules) == phases
    assert point_of(config, network, first) == point
    factors_of(params, parts, config.optim.layer_decay, config.optim.lr_multipliers)
