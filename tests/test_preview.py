"""`jaxcnn data preview`: the sheet shows what training sees."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.config import AffineConfig, AugmentConfig, FlipConfig, MixupConfig, PadCropConfig, ResizedCropConfig
from jaxcnn.errors import InputError
from jaxcnn.preview import preview

OFF = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0))


def test_without_augmentation_each_draw_is_the_image(tiny_config) -> None:
    found = preview(replace(tiny_config, augment=OFF), num_images=3, num_draws=2)
    assert found.originals.shape == (3, 28, 28, 1)
    for draw in found.draws:
        np.testing.assert_array_equal(draw, found.originals)
    assert set(found.labels) <= set("0123456789")
    assert found.captions == [[""] * 3] * 2


def test_a_draw_is_mirrored_and_a_mix_says_both_classes(tiny_config) -> None:
    found = preview(replace(tiny_config, augment=replace(OFF, flip=FlipConfig(1.0))), 3, 1)
    np.testing.assert_array_equal(found.draws[0], found.originals[:, :, ::-1])
    mixed = preview(replace(tiny_config, augment=replace(OFF, mixup=MixupConfig(1.0))), 3, 1)
    own, partner = mixed.labels[1], mixed.labels[0]
    assert own in mixed.captions[0][1].split("\n")[0]
    assert partner in mixed.captions[0][1].split("\n")[1]


@pytest.mark.parametrize("loader", ["resident", "streamed"])
def test_crops_are_those_of_the_loader(tiny_config, loader: str) -> None:
    config = replace(tiny_config, augment=replace(OFF, resized_crop=ResizedCropConfig(1.0, (0.2, 0.5))))
    found = preview(replace(config, data=replace(config.data, loader=loader)), 4, 2)
    assert found.draws.shape == (2, 4, 28, 28, 1)
    assert not np.array_equal(found.draws[0], found.draws[1])


def test_the_command_draws_a_sheet_and_tells_mistakes(digits_dir, tmp_path, capsys) -> None:
    out = tmp_path / "sheet.png"
    data = ["--data.data-dir", digits_dir]
    assert main(["data", "preview", "--out", str(out), "--images", "2", "--draws", "3", *data]) == 0
    assert "2 images, 3 draws each" in capsys.readouterr().out
    assert min(cv2.imread(str(out)).shape[:2]) > 200
    assert main(["data", "preview", "--images", "0", *data]) == 2
    assert "--images 0: 1 to 100" in capsys.readouterr().err
    assert main(["data", "preview", "--out", str(tmp_path / "no" / "x.png"), *data]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["data", "preview", "--augment.mixup.prob", "0.6", "--augment.cutmix.prob", "0.6", *data]) == 2
    assert "more than 1 together" in capsys.readouterr().err


def test_unreadable_images_are_left_out_of_the_sheet_as_configured(tiny_config, tmp_path) -> None:
    for number in range(6):
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "train" / "a" / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
        (tmp_path / "train" / "a" / f"bad{number}.png").write_bytes(b"")
    data = replace(tiny_config.data, source="folder", data_dir=str(tmp_path), train_split=None, validation_split=None)
    config = replace(tiny_config, data=replace(data, test_split=None, image_size=8, unreadable="skip"), augment=OFF)
    assert len(preview(config, 4, 1).originals) == 4
    with pytest.raises(InputError, match="are unreadable"):
        preview(replace(config, data=replace(config.data, unreadable="refuse")), 12, 1)
