"""Several devices: the same run as on one, up to rounding. Devices are simulated, in a process of their own."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxcnn import phases
from jaxcnn.config import MeshConfig, TrainConfig
from jaxcnn.config_reader import read_json, to_json
from jaxcnn.errors import InputError
from jaxcnn.mesh import make_mesh, over_data, replicate, state_placements
from jaxcnn.paths import GlobRule
from jaxcnn.training.state import create_state
from tests.conftest import with_fields
from tests.runs import ROOT, write_config


def on_devices(count: int, code: str, *arguments: object) -> str:
    """Returns what Python code prints in a process with so many CPU devices."""
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    out = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=env, cwd=ROOT
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


def steps_on(meshes: list[str], dtype: str, kind: str) -> dict[str, dict[str, float]]:
    """Returns what `tests/mesh_runs.py` finds on 8 simulated devices, by mesh."""
    code = "import runpy; runpy.run_module('tests.mesh_runs', run_name='__main__')"
    return json.loads(on_devices(8, code, dtype, kind, *meshes))


MESHES = ["8x1", "1x8", "2x4"]


@pytest.mark.parametrize(
    ("kind", "meshes"),
    [
        ("everything", ["2x4"]),
        pytest.param("everything", MESHES, marks=pytest.mark.slow),
        pytest.param("plain", MESHES, marks=pytest.mark.slow),
        pytest.param("lars", ["2x4"], marks=pytest.mark.slow),  # trust ratios are norms of divided leaves
        pytest.param("lamb", ["2x4"], marks=pytest.mark.slow),
    ],
    ids=["everything on 2x4", "everything", "plain", "lars", "lamb"],
)
def test_after_20_steps_in_float64_eight_devices_have_what_one_has(kind, meshes) -> None:
    found = steps_on(meshes, "float64", kind)
    assert found.keys() == set(meshes)
    for mesh, figures in found.items():
        assert figures["worst"] < 1e-10, (mesh, figures)
        assert bool(figures["divided"]) == (not mesh.endswith("x1")), (mesh, figures)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["everything", "plain"])
def test_after_one_step_in_float32_eight_devices_have_what_one_has(kind) -> None:
    for mesh, figures in steps_on(MESHES, "float32", kind).items():
        assert figures["worst"] < 1e-5, (mesh, figures)


@pytest.mark.slow
def test_fsdp_divides_the_memory_of_the_state() -> None:
    whole, divided = (steps_on(["8x1", "1x8"], "float32", "plain")[mesh] for mesh in ("8x1", "1x8"))
    assert whole["bytes"] == whole["bytes_of_one"]
    # 200 images of 12 x 12, kept whole, are in both.
    assert divided["bytes"] - 200 * 145 < 0.25 * (whole["bytes"] - 200 * 145)


# The gradient of a kernel whose images are taken in chunks, on as many devices: prints the collectives of the program.
GATHERS = """
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxcnn.models.conv_cpu import conv_cpu
mesh = Mesh(jax.devices(), "data")
over_data, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
loss = lambda kernel, x: jnp.sum(jnp.square(conv_cpu(1, 1, 1, x, kernel)))
step = jax.jit(jax.grad(loss), in_shardings=(everywhere, over_data), out_shardings=everywhere)
shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 3, 16, 16), (256, 32, 32, 16))]
text = step.lower(*shapes).compile().as_text()
print(" while(" in text, "all-gather" in text, "all-reduce" in text)
"""


def test_images_stay_on_their_devices_where_a_gradient_takes_them_in_chunks() -> None:
    assert on_devices(4, GATHERS).split() == ["True", "False", "True"]


@pytest.mark.slow
def test_a_run_on_four_devices_goes_on_on_one(tiny_config, tmp_path) -> None:
    file = write_config(tiny_config, tmp_path / "c.py")
    code = "import sys; from jaxcnn.cli import main; sys.exit(main(sys.argv[1:]))"
    run = tmp_path / "run"
    result = json.loads(on_devices(4, code, "train", "--config", file, "--workdir", run, "--json"))
    assert result["devices"] == 4
    assert result["test"]["examples"] == 50
    again = json.loads(on_devices(1, code, "evaluate", run, "--json"))
    assert again["top1"] == result["test"]["top1"]
    assert again["loss"] == pytest.approx(result["test"]["loss"], rel=1e-5)
    (run / "result.json").unlink()
    resumed = json.loads(on_devices(1, code, "train", "--workdir", run, "--resume", "--json"))
    assert resumed["best_step"] == result["best_step"]


def test_a_batch_that_the_devices_cannot_share_is_an_error(tiny_config, tmp_path) -> None:
    file = write_config(with_fields(tiny_config, train__batch_size=30), tmp_path / "c.py")
    code = "import sys; from jaxcnn.cli import main; print(main(sys.argv[1:]))"
    out = on_devices(4, code, "train", "--config", file, "--workdir", tmp_path / "run")
    assert out.strip() == "2"
    assert not Path(tmp_path / "run").exists()


def test_a_mesh_of_one_is_the_default_here() -> None:
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": len(jax.devices()), "fsdp": 1}
    tree = replicate(mesh, {"a": np.ones(3)})
    assert tree["a"].sharding.is_fully_replicated
    assert over_data(mesh, axis=1).spec == jax.sharding.PartitionSpec(None, ("data", "fsdp"))
    with pytest.raises(InputError, match=r"mesh\.data=1000: only 1 cpu device"):
        make_mesh(1000)
    with pytest.raises(InputError, match=r"mesh\.fsdp=3 must divide the 1 cpu device"):
        make_mesh(fsdp=3)
    with pytest.raises(InputError, match=r"mesh\.data=2 x mesh\.fsdp=4: only 1 cpu device"):
        make_mesh(2, 4)


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh asks of a device."""

    process_index: int
    id: int
    platform: str = "tpu"


def test_no_process_is_left_without_a_device_of_the_mesh() -> None:
    devices = [Device(process, 4 * process + chip) for process in range(2) for chip in range(4)]
    assert make_mesh(4, 2, devices).devices.shape == (4, 2)
    with pytest.raises(InputError, match=r"data=2 x mesh\.fsdp=2 leaves process 1 without a device"):
        make_mesh(2, 2, devices)


def placements(config: MeshConfig, fsdp: int = 4) -> dict[str, PartitionSpec]:
    """The placements of a state with adam's moments and averages, by path."""
    params = {
        "backbone": {"conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 64, 256), np.float32)}},
        "head": {
            "kernel": jax.ShapeDtypeStruct((256, 10), np.float32),
            "bias": jax.ShapeDtypeStruct((10,), np.float32),
        },
    }
    state = jax.eval_shape(
        lambda params: create_state(
            {"params": params, "batch_stats": {}}, GlobRule(("head/**",)), optax.adam(0.1), True
        ),
        params,
    )
    mesh = jax.sharding.AbstractMesh((1, fsdp), ("data", "fsdp"))
    found = state_placements(mesh, state, config)  # type: ignore[arg-type]
    return {jax.tree_util.keystr(path): leaf.spec for path, leaf in jax.tree_util.tree_leaves_with_path(found)}


def test_moments_averages_and_frozen_leaves_lie_as_their_parameter_does() -> None:
    found = placements(MeshConfig(fsdp=4, shard_min=1))
    divided = {path for path, spec in found.items() if "fsdp" in spec}
    conv, head = "['backbone']['conv']['kernel']", "['head']['kernel']"
    assert divided == {
        f".params{conv}", f".opt_state[0].mu{conv}", f".opt_state[0].nu{conv}", f".ema['params']{conv}",
        f".frozen['params']{head}",
    }  # fmt: skip
    assert found[f".params{conv}"] == PartitionSpec(None, None, None, "fsdp")  # the longest axis: outputs
    assert found[f".frozen['params']{head}"] == PartitionSpec("fsdp")  # 10 classes do not divide by 4


def test_which_leaves_fsdp_divides_is_a_rule_over_paths_and_sizes() -> None:
    assert not any("fsdp" in spec for spec in placements(MeshConfig(fsdp=4, shard_min=3 * 3 * 64 * 256 + 1)).values())
    kept = placements(MeshConfig(fsdp=4, shard=("**", "!backbone/**"), shard_min=1))
    assert {path for path, spec in kept.items() if "fsdp" in spec} == {".frozen['params']['head']['kernel']"}
    with pytest.raises(InputError, match=r"mesh\.shard: 'bckbone/\*\*' matches no parameter; nearest paths: backbone"):
        placements(MeshConfig(fsdp=4, shard=("bckbone/**",)))
    assert not any(placements(MeshConfig(shard=("bckbone/**",)), fsdp=1).values())  # nothing to divide: not asked


def test_the_images_of_a_device_share_batch_statistics_where_that_is_asked_for() -> None:
    config = TrainConfig(mesh=MeshConfig(batch_norm="device"))  # 128 images a batch
    parts = with_fields(config, optim__accumulation=2)
    assert [on_devices_config(config, 8), on_devices_config(parts, 8)] == [16, 8]
    assert on_devices_config(with_fields(config, mesh__batch_norm="global"), 8) is None


def on_devices_config(config: TrainConfig, devices: int) -> int | None:
    return phases.on_devices(config, devices).virtual_batch_size


@pytest.mark.slow
def test_batch_norm_over_a_device_is_that_of_virtual_batches_of_its_images(tiny_config, tmp_path) -> None:
    code = "import sys; from jaxcnn.cli import main; sys.exit(main(sys.argv[1:]))"
    short = with_fields(tiny_config, train__epochs=1.0)
    results = {}
    for name, fields in {"device": {"mesh__batch_norm": "device"}, "virtual": {"model__virtual_batch_size": 8}}.items():
        file = write_config(with_fields(short, **fields), tmp_path / f"{name}.py")
        results[name] = json.loads(
            on_devices(4, code, "train", "--config", file, "--workdir", tmp_path / name, "--json")
        )
    assert results["device"]["test"]["loss"] == results["virtual"]["test"]["loss"]


def test_a_run_of_an_older_version_has_its_devices_along_data(tiny_config, tmp_path) -> None:
    held = json.loads(to_json(tiny_config))
    held["mesh"] = {"devices": 1}
    (tmp_path / "config.json").write_text(json.dumps(held))
    assert read_json(TrainConfig, tmp_path / "config.json") == with_fields(tiny_config, mesh__data=1)


# A checkpoint goes through several meshes: saved on one, restored on the next; prints whether the bits stay the same.
CHAIN = """
import dataclasses, json, sys
import jax, numpy as np
from pathlib import Path
from jaxcnn import config_reader, mesh as meshes
from jaxcnn.build import build_job
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import MeshConfig
from jaxcnn.training.state import to_trees
config, held, found = config_reader.load_config(sys.argv[1]), None, []
for number, (data, fsdp) in enumerate([(1, 1), (2, 1), (4, 1), (8, 1), (2, 4), (1, 8), (1, 2), (1, 1)]):
    job = build_job(dataclasses.replace(config, mesh=MeshConfig(data=data, fsdp=fsdp, shard_min=64)))
    template = to_trees(job.state_shapes(0), job.zero_sums())
    if held is None:
        trees = to_trees(job.initial_state(), job.zero_sums())
        held = meshes.to_host(trees)
    else:
        trees, _ = checkpoints.restore(number - 1, template)
        same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), held, meshes.to_host(trees))
        placed = jax.tree.map(lambda a, b: a.sharding == b.sharding, trees, template)
        divided = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(trees))
        found.append([all(jax.tree.leaves(same)), all(jax.tree.leaves(placed)), divided > 0])
    checkpoints = Checkpoints(Path(sys.argv[2]) / str(number))
    checkpoints.save(number, trees, {})
    checkpoints.close()
    checkpoints = Checkpoints(Path(sys.argv[2]) / str(number))
print(json.dumps(found))
"""


def test_a_checkpoint_moves_between_one_two_four_and_eight_devices_bit_by_bit(tiny_config, tmp_path) -> None:
    file = write_config(with_fields(tiny_config, model__width=8, optim__ema_decay=0.9), tmp_path / "c.py")
    found = json.loads(on_devices(8, CHAIN, file, tmp_path))
    assert found == [[True, True, divided] for divided in (False, False, False, True, True, True, False)]
