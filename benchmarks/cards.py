"""Peak speeds of cards, and the share of it that a training step uses."""

import re

# Dense bfloat16 with float32 accumulation, TFLOP/s, from NVIDIA's data sheets; the first that fits counts.
PEAK_BF16_TFLOPS = (
    (r"B200", 2250.0),
    (r"H200|GH200", 989.0),
    (r"H100.*NVL", 835.0),
    (r"H100.*PCIe", 756.0),
    (r"H100", 989.0),
    (r"A100", 312.0),
    (r"A40\b", 149.7),
    (r"A10\b", 125.0),
    (r"L40S", 362.0),
    (r"L4\b", 121.0),
    (r"RTX 4090\b(?! D| Laptop)", 165.2),
    (r"RTX 3090\b(?! Ti)", 71.0),
)


def peak_flops(card: str | None) -> float | None:
    """Returns the published peak of a card in FLOP/s; none where it is not known."""
    for pattern, tflops in PEAK_BF16_TFLOPS:
        if card and re.search(pattern, card):
            return tflops * 1e12
    return None


def utilisation(multiply_adds: int, batch: int, seconds: float, peak: float) -> float:
    """Returns the model FLOPs utilisation of a training step: 3 passes x 2 FLOPs x multiply-adds, over the peak.

    Args:
      multiply_adds: of a forward pass of one image; the backward pass has twice as many.
      batch: images a step.
      seconds: of a step.
      peak: FLOP/s of the device.
    """
    return 3 * 2 * multiply_adds * batch / seconds / peak
