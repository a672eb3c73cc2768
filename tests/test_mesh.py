"""Several devices: the same run as on one, up to rounding. Devices are simulated, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcnn.errors import InputError
from jaxcnn.mesh import make_mesh, over_data, replicate
from tests.conftest import with_fields
from tests.runs import ROOT, write_config

# One step in float64 on so many devices, with accumulation, clipping and moving averages; prints the leaves' sums.
STEP = """
import dataclasses, json, sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jaxcnn import config_reader
from jaxcnn.build import build_job
config = config_reader.load_config(sys.argv[1])
job = build_job(dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=int(sys.argv[2]))))
wide = lambda tree: jax.tree.map(lambda x: x.astype("float64") if x.dtype == "float32" else x, tree)
state = job.initial_state()
state = state.replace(params=wide(state.params), batch_stats=wide(state.batch_stats),
                      opt_state=wide(state.opt_state), ema=wide(state.ema))
sums = wide(job.zero_sums())
chunk = jax.jit(job.chunk(0))
state, sums, _ = chunk(state, sums, job.feed.source, job.feed.inputs(0, 3), np.int32(3))
leaves = jax.tree_util.tree_leaves_with_path((state.params, state.batch_stats, state.ema, sums))
print(json.dumps({jax.tree_util.keystr(p): [float(np.sum(x)), float(np.sum(np.abs(x)))] for p, x in leaves}))
"""


def on_devices(count: int, code: str, *arguments: object) -> str:
    """Returns what Python code prints in a process with so many CPU devices."""
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    out = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=env, cwd=ROOT
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_four_devices_compute_what_one_computes(tiny_config, tmp_path) -> None:
    config = with_fields(tiny_config, optim__accumulation=2, optim__clip_norm=1.0, optim__ema_decay=0.9)
    file = write_config(config, tmp_path / "c.py")
    one, four = (json.loads(on_devices(4, STEP, file, count)) for count in (1, 4))
    assert one.keys() == four.keys()
    for path, value in one.items():
        # Images are augmented and normalised in float32, so the sums of float64 differ by its rounding.
        np.testing.assert_allclose(four[path], value, rtol=2e-6, atol=2e-6, err_msg=path)


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
    assert mesh.axis_names == ("data",)
    assert mesh.size == len(jax.devices())
    tree = replicate(mesh, {"a": np.ones(3)})
    assert tree["a"].sharding.is_fully_replicated
    assert over_data(mesh).spec == jax.sharding.PartitionSpec("data")
    with pytest.raises(InputError, match=r"mesh\.devices=1000: only"):
        make_mesh(1000)
