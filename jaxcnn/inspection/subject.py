"""What is inspected: a config, a run at one of its checkpoints, or a file of weights -> its leaves."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxcnn.build import build_job
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import FeaturesConfig, Preprocessing, TrainConfig
from jaxcnn.data.metadata import image_shape_and_classes
from jaxcnn.errors import InputError
from jaxcnn.inspection import leaves as rows
from jaxcnn.inspection.leaves import Leaf
from jaxcnn.job import Job
from jaxcnn.network import Network, build_network, load_variables
from jaxcnn.paths import Tree
from jaxcnn.run_folder import RunFolder, is_run
from jaxcnn.start import initial_variables
from jaxcnn.training.partition import phase_rules
from jaxcnn.training.state import TrainState, from_trees, to_trees
from jaxcnn.weights.files import HUB_PREFIX, read_weights, unwrap_names
from jaxcnn.weights.imported_run import numbered


@dataclass(frozen=True)
class Subject:
    """What is inspected.

    Attributes:
      name: what it is, in a line.
      leaves: its leaves.
      network: the network, of a config or a run; none: of a file.
      variables: {"params", "batch_stats"} where they were read or drawn; of a file the tensors by name.
      other_optimizer_bytes: what the optimizer holds besides moments; none: there is no optimizer.
      notes: what has to be known to read the figures, each a sentence.
    """

    name: str
    leaves: list[Leaf]
    network: Network | None = None
    variables: Tree | None = None
    other_optimizer_bytes: int | None = None
    notes: tuple[str, ...] = ()


def network_of(config: TrainConfig, image_size: int | None = None, num_classes: int | None = None) -> Network:
    """Returns the network of a config, with no data read where its shape and classes follow without.

    Args:
      config: what to train.
      image_size: side of the input in pixels, in the place of that of the config or the data.
      num_classes: classes of the head, likewise.

    Raises:
      InputError: data that are not known, with what to give in their place, or parts that do not fit.
    """
    data = dataclasses.replace(config.data, image_size=image_size or config.data.image_size)
    known = num_classes or config.model.num_classes or (len(data.classes) if data.classes else None)
    try:
        if data.image_size is not None and data.channels is not None and known is not None:
            shape: tuple[int, int, int] = (data.image_size, data.image_size, data.channels)
            names = data.classes or numbered(known)
        else:
            shape, names = image_shape_and_classes(data)
    except InputError as error:
        if data.image_size is None or known is None:
            given = "--image-size PX --num-classes N (and --data.channels 1 for grey images)"
            raise InputError(f"{error}; or without the data: {given}") from None
        shape, names = (data.image_size, data.image_size, data.channels or 3), numbered(known)
    if num_classes is not None:
        names = numbered(num_classes)
    channels = shape[2]
    order: Any = "grey" if channels == 1 else "RGB"
    images = Preprocessing(shape, (0.0,) * channels, (1.0,) * channels, order, data.crop_share)
    model = config.model if num_classes is None else dataclasses.replace(config.model, num_classes=None)
    # How evaluation cuts its crops is no matter of the parameters, and another image size may not allow it.
    evaluation = dataclasses.replace(config.evaluation, crops=1)
    return build_network(dataclasses.replace(config, model=model, evaluation=evaluation), images, names)


def of_config(
    config: TrainConfig,
    *,
    values: bool = False,
    step: bool = False,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> Subject:
    """Returns the leaves of the network of a config: shapes alone, or also as they are drawn, or with its first step.

    Args:
      config: what to train.
      values: draw the variables from the seed (and read those of `init_from`), for their figures.
      step: besides, look at the first step, on a batch of the data.
      image_size, num_classes: see `network_of`; not with `step`, which is of the data.

    Raises:
      InputError: as `network_of`, and with `step` as `build_job`.
    """
    if step:
        if image_size or num_classes:
            raise InputError("--step is of the data of the config: leave out --image-size and --num-classes")
        job = build_job(_whole(config))
        state = job.initial_state()
        name = f"{config.name}: {config.model.name}, {_shown(job.network)}, before its first step"
        return _stepped(name, job, state, state.current, 0, _notes(config))
    network, notes = network_of(config, image_size, num_classes), _notes(config)
    name = f"{config.name}: {config.model.name}, {_shown(network)}, " + ("as drawn" if values else "shapes only")
    leaves, other = rows.leaves_of(config, network)
    if not values:
        return Subject(name, leaves, network, None, other, notes)
    variables = initial_variables(config, network)
    return Subject(name, rows.with_values(leaves, variables), network, variables, other, notes)


def of_run(place: str, checkpoint: str = "best", *, step: bool = False) -> Subject:
    """Returns the leaves of a run at one of its checkpoints.

    Args:
      place: the run folder, or RUN@CHECKPOINT.
      checkpoint: "best", "latest" or a step, where `place` does not say.
      step: look at the step that follows the checkpoint; its data have to be there. Without, what the run itself has
        seen of its steps last is shown.

    Raises:
      InputError: no such run or checkpoint, or with `step` a run of imported weights, which has none.
    """
    folder, variables, at = _read_run(place, checkpoint)
    config = folder.config
    network = build_network(config, folder.preprocessing, folder.class_names)
    name = f"{_named(folder, at)}, {_shown(network)}"
    if folder.is_imported:
        if step:
            raise InputError(f"--step: {folder.path} holds imported weights, no training to take a step of")
        leaves = [_untrained(leaf) for leaf in rows.leaves_of(config, network)[0]]
        return Subject(name, rows.with_values(leaves, variables), network, variables)
    notes = _notes(config)
    if step:
        job = build_job(_whole(config), folder)
        state, phase = _state_at(job, folder, at)
        return _stepped(name, job, state, variables, phase, notes)
    leaves, other = rows.leaves_of(config, network, phase_at(folder, at))
    leaves = rows.with_values(leaves, variables)
    looks = [line for line in folder.health() if "leaves" in line and line["step"] <= at]
    if looks:
        leaves = rows.with_step(leaves, looks[-1]["leaves"])
        seen = looks[-1]["step"] + 1
        notes = (*notes, f"gradient and update are of step {seen}, the last that was looked at before (health.jsonl)")
    return Subject(name, leaves, network, variables, other, notes)


def network_at(place: str, checkpoint: str = "best") -> Network:
    """Returns the network of a run or RUN@CHECKPOINT; its weights are not read.

    Raises:
      InputError: no run is there; a file of weights does not say what network it is of.
    """
    path, _ = at_checkpoint(place, checkpoint)
    if not is_run(path):
        raise InputError(f"{place} is no run: a file of weights has no layers to list; give a run or --config")
    folder = RunFolder(path)
    return build_network(folder.config, folder.preprocessing, folder.class_names)


def weights_of_run(place: str, checkpoint: str = "best") -> tuple[str, Tree]:
    """Returns (what it is, {"params", "batch_stats"}) of a run or RUN@CHECKPOINT; raises as `of_run`."""
    folder, variables, at = _read_run(place, checkpoint)
    return _named(folder, at), variables


def _read_run(place: str, checkpoint: str) -> tuple[RunFolder, Tree, int]:
    path, which = at_checkpoint(place, checkpoint)
    folder = RunFolder(path)
    return folder, *load_variables(folder, which)


def _named(folder: RunFolder, step: int) -> str:
    config = folder.config
    averaged = " (moving averages)" if config.optim.ema_decay is not None and not folder.is_imported else ""
    return f"{folder.path}: {config.model.name}, step {step}{averaged}"


def of_file(place: str) -> Subject:
    """Returns the tensors of a file of weights or of hf-hub:OWNER/NAME, by their own names; raises InputError."""
    weights = read_weights(place)
    leaves = rows.leaves_of_tensors(weights.tensors, stored_types(Path(place)))
    return Subject(f"{place}: {len(leaves)} tensors", leaves, variables=weights.tensors)


def stored_types(path: Path) -> dict[str, str]:
    """Returns the types that the tensors of a safetensors file have in it (`read_weights` widens them); else none."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        found = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
    return {name: _TYPES[kind] for name, kind in unwrap_names(found).items() if kind in _TYPES}


_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip


def of_place(place: str, checkpoint: str = "best", *, step: bool = False) -> Subject:
    """Returns what is at a place: a run, RUN@CHECKPOINT, or a file of weights; raises InputError."""
    if is_run(at_checkpoint(place, checkpoint)[0]):
        return of_run(place, checkpoint, step=step)
    subject = of_file(place)
    if step:
        raise InputError(f"--step: {place} is a file of weights, which has no data and no optimizer; give a run")
    return subject


def at_checkpoint(place: str, checkpoint: str = "best") -> tuple[str, str]:
    """Returns (run folder, which checkpoint) of RUN or RUN@CHECKPOINT; a folder may have @ in its own name."""
    path, at, which = place.rpartition("@")
    return (place, checkpoint) if is_run(place) or not at or place.startswith(HUB_PREFIX) else (path, which)


def phase_at(folder: RunFolder, step: int) -> int:
    """Returns the phase in which a checkpoint of a run was saved."""
    config = folder.config
    if len(phase_rules(config.freeze, config.unfreeze)) == 1:
        return 0
    _, progress = Checkpoints(folder.checkpoints, read_only=True).restore(step, {})
    return int(progress.get("phase", 0))


def _state_at(job: Job, folder: RunFolder, step: int) -> tuple[TrainState, int]:
    """The state of a run after a step, as training goes on from it, and its phase."""

    def templates(progress: dict[str, Any]) -> dict[str, Any]:
        return to_trees(job.state_shapes(progress.get("phase", 0)), job.zero_sums())

    trees, progress = Checkpoints(folder.checkpoints, read_only=True).restore(step, templates)
    phase = int(progress.get("phase", 0))
    return from_trees(trees, job.phases[phase].rule)[0], phase


def _stepped(
    name: str, job: Job, state: TrainState, variables: Tree, phase: int, notes: tuple[str, ...] = ()
) -> Subject:
    """The leaves with what the next step would do to them; the state stays as it is."""
    step = int(state.step)
    ended = step >= job.total_steps  # there is no batch after the last, but one may look at what it would do once more
    inputs = job.feed.inputs(min(step, job.total_steps - 1), 1)
    try:
        figures = jax.device_get(job.compile_look(state, inputs, phase)(state, job.feed.source, inputs))
    finally:
        job.feed.close()
    rate = float(job.schedule(step))
    leaves, other = rows.leaves_of(job.config, job.network, phase)
    leaves = rows.with_step(rows.with_values(leaves, variables), figures["leaves"])
    told = (
        f"gradient and update are of step {step + 1}{' (past the end, on the last batch)' if ended else ''}: objective "
        f"{float(figures['objective']):.4g}, learning rate {rate:.4g}; nothing was changed by it"
    )
    return Subject(name, leaves, job.network, variables, other, (*notes, told))


def _whole(config: TrainConfig) -> TrainConfig:
    """The config with nothing kept of the frozen part: nothing is computed for a look alone.

    It takes one device where the run had more devices than are here.
    """
    data, fsdp, here = config.mesh.data, config.mesh.fsdp, len(jax.devices())
    fits = here % fsdp == 0 if data is None else data * fsdp <= here
    mesh = config.mesh if fits else dataclasses.replace(config.mesh, data=1, fsdp=1)
    return dataclasses.replace(config, features=FeaturesConfig(), mesh=mesh)


def _untrained(leaf: Leaf) -> Leaf:
    return dataclasses.replace(leaf, state=None, decays=None, rate=None, optimizer_bytes=None)


def _notes(config: TrainConfig) -> tuple[str, ...]:
    if config.init_from is None:
        return ()
    return (f"the leaves that init_from={config.init_from!r} fills start from it, not as their initialiser draws",)


def _shown(network: Network) -> str:
    return f"images {'x'.join(map(str, network.preprocessing.image_shape))}, {len(network.class_names)} classes"
