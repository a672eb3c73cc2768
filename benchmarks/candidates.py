"""Who is compared: where each is implemented, what it is called, and the environment of its process."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One way to compute a step.

    Attributes:
      title: its name in tables.
      module: where `build(task) -> Program` is; JAX candidates have `train_program(task) -> Compilable` too.
        Those of `python -m benchmarks input` have `batches(task) -> Iterator` instead.
      uses_torch: whether its process imports torch.
      may_fail: whether it is left out, with the reason, where it does not work on this machine.
    """

    title: str
    module: str
    uses_torch: bool = False
    may_fail: bool = False


CANDIDATES = {
    "ours": Candidate("jaxcnn", "benchmarks.ours"),
    "ours-input": Candidate("jaxcnn, input included", "benchmarks.ours"),
    "ours-chunk": Candidate("jaxcnn, all steps in one dispatch", "benchmarks.ours"),
    "pytorch": Candidate("PyTorch eager", "benchmarks.torch_program", uses_torch=True),
    "torch.compile": Candidate("PyTorch, torch.compile", "benchmarks.torch_program", uses_torch=True, may_fail=True),
    "flax": Candidate("plain flax", "benchmarks.plain_flax_program"),
    "ours-forward": Candidate("jaxcnn, forward only", "benchmarks.frozen_ours"),
    "ours-probe": Candidate("jaxcnn, linear probe", "benchmarks.frozen_ours"),
    "ours-clip": Candidate("jaxcnn, linear probe, clipped", "benchmarks.frozen_ours"),
    "ours-head": Candidate("jaxcnn, head on cached features", "benchmarks.frozen_ours"),
    "flax-frozen": Candidate("plain flax, frozen by optax", "benchmarks.plain_flax_program"),
    "pytorch-frozen": Candidate("PyTorch eager, frozen", "benchmarks.torch_program", uses_torch=True),
    "threads": Candidate("jaxcnn, threads", "benchmarks.input_ours"),
    "processes": Candidate("jaxcnn, processes", "benchmarks.input_ours"),
    "dataloader": Candidate("PyTorch DataLoader, PIL", "benchmarks.input_torch", uses_torch=True, may_fail=True),
    "tf.data": Candidate("tf.data", "benchmarks.input_tf", may_fail=True),
}


def environment(name: str, device: str) -> dict[str, str]:
    """Returns the environment of a candidate's process; it must be set before anything is imported there."""
    if CANDIDATES[name].uses_torch:
        # Threads that wait by spinning would slow torch itself beside any other load, and the others in their turns.
        return {**os.environ, "OMP_WAIT_POLICY": "passive"}
    platforms = "cuda,cpu" if device == "gpu" else "cpu"
    # The processes share one card, so none may take its memory in advance.
    return {**os.environ, "JAX_PLATFORMS": platforms, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
