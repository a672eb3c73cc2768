"""Published figures of chips: what a plan holds a program against.

Peaks are those without sparsity. Interconnect is what a chip can send in one direction; vendors mostly publish the sum
of both directions, which is twice that.
"""

from dataclasses import dataclass

from jaxcnn.errors import InputError, did_you_mean

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Published figures of a chip.

    Attributes:
      name: as vendors and clouds write it.
      kind: "tpu" or "gpu".
      bf16_flops: peak of bfloat16 products, FLOP/s.
      float32_flops: peak of the products of a float32 config, as JAX computes them by default: on TPUs in bfloat16, on
        GPUs in TF32 where there is such.
      memory_bytes: on the chip. TPUs and data-centre GPUs: GiB, although they are published as GB.
      memory_bandwidth: bytes a second.
      links: interconnect ports; link_bandwidth: of one of them in one direction, bytes a second.
      source: where the figures are published.
      note: what has to be known to read them.
    """

    name: str
    kind: str
    bf16_flops: float
    float32_flops: float
    memory_bytes: int
    memory_bandwidth: float
    links: int
    link_bandwidth: float
    source: str
    note: str = ""

    def peak(self, dtype: str) -> float:
        """Returns the peak for a compute type of a config, in FLOP/s."""
        return self.float32_flops if dtype == "float32" else self.bf16_flops


def _tpu(
    name: str, tflops: float, gib: int, gbytes: float, links: int, link_gbytes: float, page: str, note: str = ""
) -> Chip:
    source = f"https://docs.cloud.google.com/tpu/docs/{page}"
    return Chip(
        name, "tpu", tflops * 1e12, tflops * 1e12, gib * GIB, gbytes * 1e9, links, link_gbytes * 1e9, source, note
    )


def _gpu(
    name: str, tflops: float, float32: float, gib: int, gbytes: float, link_gbytes: float, source: str, note: str = ""
) -> Chip:
    peaks = tflops * 1e12, float32 * 1e12
    return Chip(name, "gpu", *peaks, gib * GIB, gbytes * 1e9, 1, link_gbytes * 1e9, source, note)


TPUS = {
    chip.name: chip
    for chip in (
        # ICI of v4: 6 links of 50 GB/s (Jouppi et al. 2023, arXiv:2304.01433, table 4).
        _tpu("v4", 275, 32, 1200, 6, 50, "v4", "interconnect: Jouppi et al. 2023 (arXiv:2304.01433), table 4"),
        # 400 GB/s both ways over 4 ports; 1200 over the 6 of a 3D torus; 800 over 4.
        _tpu("v5e", 197, 16, 819, 4, 50, "v5e"),
        _tpu("v5p", 459, 95, 2765, 6, 100, "v5p"),
        _tpu("v6e", 918, 32, 1640, 4, 100, "v6e", "memory: 1600 GB/s in newer versions of the page"),
    )
}

_NO_LINK = "no NVLink: interconnect is PCIe"
GPUS = {
    chip.name: chip
    for chip in (
        _gpu("a100", 312, 156, 80, 2039, 300, "NVIDIA A100 datasheet (SXM, 80 GB)"),
        _gpu("a100-40", 312, 156, 40, 1555, 300, "NVIDIA A100 datasheet (SXM, 40 GB)"),
        _gpu("h100", 989.4, 494.7, 80, 3350, 450, "NVIDIA H100 datasheet (SXM), without sparsity"),
        _gpu("h200", 989.4, 494.7, 141, 4800, 450, "NVIDIA H200 datasheet (SXM), without sparsity"),
        _gpu("l4", 121, 60, 24, 300, 32, "NVIDIA L4 datasheet, without sparsity", _NO_LINK),
        _gpu(
            "t4", 65, 8.1, 16, 320, 16, "NVIDIA T4 datasheet",
            f"{_NO_LINK}; its 65 TFLOP/s are of float16: bfloat16 runs at a fraction of it",
        ),
        _gpu("rtx4090", 165.2, 82.6, 24, 1008, 32, "NVIDIA Ada GPU architecture whitepaper, table 2", _NO_LINK),
        _gpu("rtx3090", 71, 35.6, 24, 936, 32, "NVIDIA Ampere GA102 GPU architecture whitepaper, table 9", _NO_LINK),
    )
}  # fmt: skip

_OTHER_NAMES = {
    "a100-80": "a100", "a100-80gb": "a100", "a100-40gb": "a100-40", "h100-sxm": "h100", "4090": "rtx4090",
    "3090": "rtx3090", "rtx-4090": "rtx4090", "rtx-3090": "rtx3090", "v5litepod": "v5e", "trillium": "v6e",
}  # fmt: skip


def chip_named(name: str) -> Chip:
    """Returns a chip by its name.

    Raises:
      InputError: none is called so.
    """
    known = {**TPUS, **GPUS}
    plain = name.lower().replace("_", "-")
    if (chip := known.get(_OTHER_NAMES.get(plain, plain))) is None:
        raise InputError(f"no published figures of a chip {name!r}; {did_you_mean(name, known, limit=4)}")
    return chip
