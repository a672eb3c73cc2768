"""Config -> data, model, optimizer and step, checked against each other before anything compiles.

What evaluation and prediction need of this, the model with its preprocessing and variables, is in `network.py`.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn import processes
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.data import loader
from jaxcnn.data.source import Splits
from jaxcnn.data.sources import open_splits
from jaxcnn.data.split_expressions import data_set_name
from jaxcnn.errors import InputError
from jaxcnn.feature_cache.points import point_of
from jaxcnn.feature_cache.reading import Reading, cached_features
from jaxcnn.inputs import Inputs, batches_of, feed_of, read_inputs
from jaxcnn.job import Job, check_batches, check_steps, steps_of
from jaxcnn.models.registry import describe
from jaxcnn.models.scan import split_stages
from jaxcnn.network import Network, build_network, has_checkpoint, load_variables
from jaxcnn.phases import class_counts, make_phases, on_devices
from jaxcnn.run_folder import RunFolder
from jaxcnn.start import check_frozen_start, fit_start, initial_variables
from jaxcnn.training.learning_rates import batch_factor, peak_rate, peak_told
from jaxcnn.training.partition import check_phases, first_phases, phase_rules
from jaxcnn.training.schedules import make_schedule
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import zero_sums
from jaxcnn.weights.importer import preprocessing_for, statistics_told

LOG = logging.getLogger("jaxcnn")


def build_job(
    config: TrainConfig,
    run: RunFolder | None = None,
    splits: Splits | None = None,
    check: Callable[[int], None] = lambda total_steps: None,
    preprocess: Preprocessing | None = None,
) -> Job:
    """Returns the run of a config, with its data read and placed; nothing of the run is written.

    Nothing is compiled either, until all is checked; then, where features are kept, the frozen part of the network is
    run over the data that it has not seen yet.

    Args:
      config: what to train.
      run: the folder of a run that goes on: its preprocessing and classes hold, and `init_from` is not read again
        once it has a checkpoint.
      splits: the data, for those who have them in Python; none: those that `config.data` names.
      check: called with the number of steps before features are computed: what the caller has to say against them.
      preprocess: how images become the network's input, for those who know better than the data or the weights of
        `init_from`; none: as these say.

    Raises:
      InputError: anything that does not fit: names, sizes, class counts, freeze globs, devices, data not prepared.
    """
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp)
    if splits is None:
        splits = processes.first_before_others(lambda: open_splits(config.data), "open the data")
    check_batches(config, splits.train.num_examples, mesh.size, splits.train.name)
    shape = loader.input_shape(splits.train, config.data.image_size, config.data.channels)
    class_names = splits.train.class_names
    unmeasured = Preprocessing(shape, (0.0,) * shape[2], (1.0,) * shape[2], _order(shape), config.data.crop_share)
    planned = build_network(config, unmeasured, class_names)
    rules = phase_rules(config.freeze, config.unfreeze)
    check_phases(planned.shapes["params"], rules, config.train.epochs)
    point = point_of(config, planned, first_phases(planned.shapes["params"], [rule for _, rule in rules]))
    start = None
    if config.init_from is None and config.replace_head != "auto":
        raise InputError(f"replace_head={config.replace_head!r}: without init_from there is no head to keep or replace")
    if config.init_from is not None and run is None:
        start, fitted = fit_start(config, planned.shapes, class_names)
        check_frozen_start(config, fitted.anew, rules)
    elif config.init_from is None:
        check_frozen_start(config, ("params/head/kernel", "params/head/bias"), rules)

    inputs = read_inputs(config, splits, planned)
    preprocessing = dataclasses.replace(unmeasured, mean=inputs.mean, std=inputs.std)
    if run is not None:
        preprocessing = _held_preprocessing(run, config, preprocessing, class_names)
    elif start is not None:  # what the weights were trained with counts, not what the new images are like
        preprocessing = preprocessing_for(start.hints, shape, config.data.crop_share)
        LOG.info(f"mean and std of the images: those of init_from ({statistics_told(start.hints)})")
    network = build_network(config, preprocessing if preprocess is None else preprocess, class_names)
    _log_choices(config, network, splits, mesh)
    return _assemble(config, network, mesh, inputs, point, run, check)


def _order(shape: tuple[int, int, int]) -> Any:
    return "grey" if shape[2] == 1 else "RGB"


def _held_preprocessing(
    run: RunFolder, config: TrainConfig, measured: Preprocessing, class_names: tuple[str, ...]
) -> Preprocessing:
    """The preprocessing that a run holds; raises InputError where the data are no longer those it was started with."""
    held = run.preprocessing
    if run.class_names != class_names:
        raise InputError(f"{run.path} was started with other classes than {data_set_name(config.data)} has now")
    if config.init_from is None and held != measured:
        raise InputError(
            f"{run.path}: preprocessing.json is not that of {data_set_name(config.data)} as it is now "
            f"(mean {held.mean}, now {measured.mean}): the data or the file have changed since the run was started"
        )
    return held


def _assemble(
    config: TrainConfig,
    network: Network,
    mesh: Mesh,
    inputs: Inputs,
    point: str | None,
    run: RunFolder | None,
    check: Callable[[int], None],
) -> Job:
    size = config.train.batch_size
    if size > inputs.num_train:
        raise InputError(f"train.batch_size={size} is larger than the training split ({inputs.num_train} examples)")
    steps_per_epoch = inputs.num_train / size
    total_steps = steps_of(config.train.epochs, steps_per_epoch)
    schedule = make_schedule(config.schedule, peak_rate(config), total_steps, steps_per_epoch)
    phases = make_phases(config, network, schedule, inputs, point, devices=mesh.size)
    check_steps(phases, steps_per_epoch, total_steps)
    placements = meshes.state_placements(mesh, phases[0].state_shapes(network), config.mesh)
    check(total_steps)

    def variables() -> dict[str, Any]:
        return initial_variables(config, network, class_counts(inputs, network))

    def initial_state() -> TrainState:
        return meshes.place_state(phases[0].begin(variables()), placements)

    read = _reading(config, network, mesh, inputs, point, run, variables, total_steps)

    @functools.cache
    def no_sums() -> dict[str, np.ndarray]:
        images = jax.ShapeDtypeStruct((size, *read.feed.image_shape), read.feed.image_dtype)
        return zero_sums(
            phases[0].step, phases[0].state_shapes(network), images, jax.ShapeDtypeStruct((size,), jnp.int32)
        )

    return Job(
        config=config,
        network=network,
        mesh=mesh,
        feed=read.feed,
        measured=read.network,
        start=point,
        splits=read.splits,
        clean=read.clean,
        inputs=inputs,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        phases=phases,
        phases_of=lambda other, start, rates=schedule: make_phases(
            other, network, rates, inputs, start, devices=mesh.size
        ),
        initial_state=initial_state,
        zero_sums=lambda: meshes.replicate(mesh, no_sums()),  # new buffers each time: they are donated
    )


def _reading(
    config: TrainConfig,
    network: Network,
    mesh: Mesh,
    inputs: Inputs,
    point: str | None,
    run: RunFolder | None,
    variables: Callable[[], dict[str, Any]],
    total_steps: int,
) -> Reading:
    """What the run reads: images or, of a point, features; those that are not kept yet are computed."""
    if point is None:
        feed = feed_of(config, inputs, network, mesh, total_steps)
        splits = {name: batches_of(split, network, mesh) for name, split in inputs.others.items()}
        clean = None if inputs.clean is None else batches_of(inputs.clean, network, mesh)
        return Reading(network, feed, splits, clean)
    begun = run is not None and has_checkpoint(run)
    # What is before the point is the same in every checkpoint; "best" is any that is whole.
    held = load_variables(run, "best")[0] if run is not None and begun else variables()
    return cached_features(config, inputs, network, held, point, mesh, total_steps)


def _devices_told(config: TrainConfig, network: Network, mesh: Mesh) -> str:
    """Devices, what each holds, and which images share batch statistics."""
    device, (size, parts) = mesh.devices.flat[0], (config.train.batch_size, config.optim.accumulation)
    told = f"devices: {mesh.size} x {device.device_kind} ({device.platform})"
    if mesh.size > 1:
        told += (
            f", mesh data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}; {size // mesh.size} images of a batch each"
        )
    if parts > 1:
        told += f"; a batch goes in {parts} parts of {size // parts} images"
    shared = on_devices(config, mesh.size).virtual_batch_size or size // parts
    if network.shapes["batch_stats"] and (mesh.size > 1 or shared < size):
        told += f"; batch norm over {shared} images"
        if mesh.size > 1 and config.mesh.batch_norm == "device":
            told += " (those of a device: another number of devices gives other results)"
    return told


def _log_choices(config: TrainConfig, network: Network, splits: Splits, mesh: Mesh) -> None:
    """One line on what was chosen, also by default."""
    parts = ", ".join(f"{name} {source.name} ({source.num_examples:,})" for name, source in splits.named().items())
    LOG.info(f"data: {parts}; images {'x'.join(map(str, network.preprocessing.image_shape))}")
    LOG.info(f"model: {config.model.name}, {describe(network.model)}, {network.num_parameters:,} parameters")
    if config.freeze and config.init_from is None:
        LOG.warning("warning: freeze without init_from: what is frozen stays as it is drawn")
    for stage in split_stages(network.model.backbone, network.shapes["params"]["backbone"]):
        LOG.info(f"model: the freeze takes leaves of some equal blocks of {stage} only, so it is not scanned")
    _log_rate(config)
    LOG.info(_devices_told(config, network, mesh))


def _log_rate(config: TrainConfig) -> None:
    """What the batch makes of the learning rate, where a rule is named."""
    if config.optim.lr_scaling == "none":
        return
    epochs = config.schedule.warmup_epochs
    LOG.info(f"learning rate: {peak_told(config)}, " + (f"warm-up of {epochs:g} epochs" if epochs else "no warm-up"))
    if batch_factor(config) > 1 and not epochs:
        LOG.warning(
            "warning: a learning rate scaled up with the batch needs a warm-up (Goyal et al. 2017, section 2.2): set "
            "schedule.warmup_epochs, such as 5"
        )
