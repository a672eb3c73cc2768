"""The figures of a step on TPUs that are not here, and what is said where there are none to be had."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import pytest

from jaxcnn.config import LoopConfig, MeshConfig, ModelConfig, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.plan import StepFigures, collective_bytes, compiling, plan_step, topology, topology_mesh

TINY = TrainConfig(model=ModelConfig(name="resnet8", width=8, dtype="bfloat16"), train=LoopConfig(batch_size=16))
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def test_missing_libtpu_is_told_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[tpu\]"'):
        topology_mesh("v5e:2x4")


def _raised(message):
    def refuse(**_):
        raise RuntimeError(message)

    return refuse


def test_errors_of_libtpu_become_one_line(monkeypatch):
    from jax.experimental import topologies

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(topologies, "get_topology_desc", _raised("INVALID_ARGUMENT: v9\nand more"))
    with pytest.raises(InputError, match=r"topology='v9:1x1': .* v5e:2x4, .*\(INVALID_ARGUMENT: v9\)$"):
        topology_mesh("v9:1x1")
    monkeypatch.setattr(topologies, "get_topology_desc", _raised("ABORTED: multi-process lockfile"))
    with pytest.raises(InputError, match="ALLOW_MULTIPLE_LIBTPU_LOAD=1"):
        topology_mesh("v5e:2x4")


def test_chips_that_a_mesh_leaves_idle_are_refused(monkeypatch):
    """Figures are a chip's share of all of them: with half of the chips idle each would be wrong by two."""
    monkeypatch.setattr(topology, "described_devices", lambda name: [object()] * 4)
    with pytest.raises(InputError, match=r"mesh\.data=2 x mesh\.fsdp=1 is not the 4 chips of v5e:2x2"):
        topology_mesh("v5e:2x2", MeshConfig(data=2))


def test_a_batch_that_the_chips_cannot_share_is_told(monkeypatch):
    monkeypatch.setattr(compiling, "topology_mesh", lambda _: type("Mesh", (), {"size": 3}))
    with pytest.raises(InputError, match=r"train\.batch_size=16 must be a multiple of the 3 chips"):
        plan_step(TINY, (32, 32, 3), 10, "v5e:1x3")


def test_collectives_are_counted_by_their_results():
    program = """
      %all-reduce.1 = (f32[64,2]{1,0}, bf16[8]{0}) all-reduce(%a, %b), replica_groups={}
      %fusion.2 = f32[1000]{0} fusion(%all-reduce.1), kind=kLoop
      %ag = f32[3]{0} all-gather(%c), dimensions={0}
    """
    assert collective_bytes(program) == 64 * 2 * 4 + 8 * 2 + 3 * 4


_PROGRAM = """
import dataclasses, json
from tests.test_plan import TINY
from jaxcnn.plan import plan_step
print(json.dumps([dataclasses.asdict(plan_step(TINY, (32, 32, 3), 10, name)) for name in ("v5e:1x1", "v5e:2x2")]))
"""


@needs_libtpu
@pytest.mark.slow
def test_a_tiny_step_compiles_for_one_chip_and_for_four():
    import json

    env = {**os.environ, "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    out = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env=env)
    one, four = (StepFigures(**row) for row in json.loads(out.stdout.splitlines()[-1]))
    assert all(value > 0 for name, value in dataclasses.asdict(one).items() if not name.startswith("collective"))
    assert one.collective_bytes == 0
    assert four.collective_bytes > 0
    assert four.flops < 0.5 * one.flops, "the batch is divided"
