"""Weights of the timm collection on the Hugging Face hub, by huggingface_hub (the extra `hub`).

`hf-hub:timm/resnet50.a1_in1k`. What is in the user's cache is used without a network, `HF_HUB_OFFLINE=1` forbids one.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from jaxcnn.errors import InputError
from jaxcnn.weights.files import HUB_PREFIX, Hints, Weights, read_safetensors

_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # the hub's own rule


def read_hub(place: str) -> Weights:
    """Returns the weights of a hub repository; its config.json tells mean, std, size and crop share.

    Raises:
      InputError: no such name, not reachable and not in the cache, or huggingface_hub is not installed.
    """
    name = place.removeprefix(HUB_PREFIX)
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{place} is no hub name: expected {HUB_PREFIX}OWNER/NAME, for instance {HUB_PREFIX}timm/resnet50.a1_in1k"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError(f'{place}: the hub needs huggingface_hub: pip install "jaxcnn[hub]"') from None
    try:
        file = Path(hf_hub_download(name, "model.safetensors"))
        config = Path(hf_hub_download(name, "config.json"))
    except Exception as error:  # huggingface_hub raises many kinds, and httpx's own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{place} is neither in the cache nor reachable ({type(error).__name__}: {line})") from None
    try:
        hints = _hints(json.loads(config.read_text()))
    except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as error:
        raise InputError(f"{place}: its config.json is not of the kind that timm writes ({error})") from None
    return dataclasses.replace(read_safetensors(file, place), hints=hints)


def _hints(config: dict[str, Any]) -> Hints:
    """From timm's `pretrained_cfg`: mean and std in units of 0..1, input_size [C, H, W], crop_pct."""
    told = config.get("pretrained_cfg", config)
    return Hints(
        mean=tuple(map(float, told["mean"])),
        std=tuple(map(float, told["std"])),
        image_size=int(told["input_size"][1]),
        crop_share=float(told.get("crop_pct", 0.875)),
    )
