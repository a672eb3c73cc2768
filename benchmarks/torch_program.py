"""The candidates `pytorch`, `torch.compile` and `pytorch-frozen`: channels_last, SGD with momentum, all cores,
autocast for bfloat16.

`pytorch-frozen` has no gradient for the backbone, so that autograd records nothing of it, in evaluation mode, so that
its running statistics stay; only the head trains.
"""

import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.program import LEARNING_RATE, MOMENTUM, Program, draw_images, normalised, read_weights
from benchmarks.torch_networks import build_network
from benchmarks.workloads import Task
from jaxcnn.weights.layouts import to_theirs
from jaxcnn.weights.names import leaf_names


def build(task: Task) -> Program:
    """Returns the program of a task with the weights of its file."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    network = build_network(task.architecture, task.num_classes).to(memory_format=torch.channels_last)
    load(network, read_weights(task))
    parameters = sum(parameter.numel() for parameter in network.parameters())

    def logits(images: np.ndarray) -> np.ndarray:
        # On a CPU wherever it runs: a card would round the inputs of its products.
        network.eval().cpu()
        with torch.inference_mode():
            values = network(_channels_last(images)).numpy()
        network.to(_device(task))
        return values

    make_run = make_trainer if task.kind == "train" else _make_passer
    return Program(parameters, logits, make_run(task, network))


def load(network: nn.Module, variables: dict[str, np.ndarray]) -> None:
    """Puts our variables into a network, under the names that torchvision's weights have."""
    entries = leaf_names({path: leaf.ndim for path, leaf in variables.items()}, "torchvision")
    assert entries is not None
    tensors = {
        entry.name: torch.from_numpy(to_theirs(variables[path], entry.layout)) for path, entry in entries.items()
    }
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**tensors, **counters})


def _device(task: Task) -> str:
    return "cuda" if task.device == "gpu" else "cpu"


def _channels_last(images: np.ndarray) -> Tensor:
    """Images [N, H, W, 3] as [N, 3, H, W] whose memory stays in the order N, H, W, C."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _placed(task: Task, network: nn.Module) -> tuple[Callable, Callable[[], torch.autocast], Tensor, Tensor]:
    """(forward, precision, images, labels): the network on its device, compiled where the candidate is that one."""
    device = _device(task)
    images, labels = draw_images(task, 1)
    network.to(device)
    forward = torch.compile(network) if task.candidate == "torch.compile" else network

    def precision() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=task.dtype == "bfloat16")

    batch = _channels_last(normalised(images[0])).to(device)
    return forward, precision, batch, torch.from_numpy(labels[0]).long().to(device)


def make_trainer(task: Task, network: nn.Module) -> Callable[[int], None]:
    """Returns what does so many training steps of a network, on one batch."""
    forward, precision, images, labels = _placed(task, network)
    frozen = task.candidate == "pytorch-frozen"
    if frozen:
        network.requires_grad_(False)
        list(network.children())[-1].requires_grad_(True)  # the head
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, LEARNING_RATE, MOMENTUM)

    def run(num_steps: int) -> None:
        network.train(not frozen)
        for _ in range(num_steps):
            optimizer.zero_grad(set_to_none=True)
            with precision():
                loss = F.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        _wait(task)

    return run


def _make_passer(task: Task, network: nn.Module) -> Callable[[int], None]:
    forward, precision, images, _ = _placed(task, network)

    def run(num_passes: int) -> None:
        network.eval()
        with torch.inference_mode(), precision():
            for _ in range(num_passes):
                forward(images)
        _wait(task)

    return run


def _wait(task: Task) -> None:
    if task.device == "gpu":
        torch.cuda.synchronize()
