"""The quick start's network on the digits 0 to 4: what `digits_transfer.py` starts from. A minute on two CPU cores."""

from jaxcnn.config import DataConfig, TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(name="digits_pretrain", data=DataConfig(classes=("0", "1", "2", "3", "4")))
