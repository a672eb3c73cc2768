"""The arithmetic of a plan on constructed figures: fit, roofline, length of the run, advice, what is printed."""

import dataclasses

import pytest

from jaxcnn.config import DataConfig, LoopConfig, ModelConfig, OptimConfig, Preprocessing, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.job import check_batches
from jaxcnn.plan.advice import Candidate, best, candidates_of, changes_of, fewest_chips
from jaxcnn.plan.chips import GIB, GPUS, TPUS, chip_named
from jaxcnn.plan.compiling import StepFigures, needed_bytes
from jaxcnn.plan.planning import Plan
from jaxcnn.plan.program import Collective
from jaxcnn.plan.rendering import advice_lines, lines_of, to_json
from jaxcnn.plan.roofline import roofline
from jaxcnn.plan.subject import Subject
from jaxcnn.plan.topology import place_named

CONFIG = TrainConfig(
    model=ModelConfig(name="resnet8", dtype="bfloat16"),
    optim=OptimConfig(peak_lr=0.4),
    train=LoopConfig(epochs=10.0, batch_size=1024),
)
SUBJECT = Subject(
    CONFIG,
    Preprocessing((32, 32, 3), (0.5,) * 3, (0.25,) * 3),
    tuple("0123456789"),
    {"train": 102_400, "validation": 3_000},
    "streamed",
)
FIGURES = StepFigures(
    flops=1.97e12,  # 10 ms of a v5e
    bytes_accessed=16.38e9,  # 20 ms
    temp_bytes=4 * GIB,
    argument_bytes=2 * GIB,
    output_bytes=1 * GIB,
    alias_bytes=1 * GIB,
    collectives=(Collective("all-reduce", 8, 3, 400_000_000),),  # 700 MB over two ports of 50 GB/s: 7 ms
)


def _plan(figures=FIGURES, subject=SUBJECT, needed=None, **fields) -> Plan:
    needed = figures.needed_bytes if needed is None else needed
    given = {
        "place": place_named("v5e:2x4"), "mesh": {"data": 8, "fsdp": 1}, "held_bytes": GIB // 2,
        "usable_bytes": 15 * GIB, "model_flops": 1.5e12, "seconds": 1.0, "argument_bytes": 2 * GIB,
    }  # fmt: skip
    return Plan(**{**given, "subject": subject, "figures": figures, "program_bytes": needed, **fields})


def test_memory_is_arguments_temporaries_and_outputs_less_what_takes_the_place_of_arguments():
    plan = _plan()
    assert plan.needed_bytes == (2 + 4 + 1 - 1) * GIB + GIB // 2
    assert plan.fits
    assert not dataclasses.replace(plan, usable_bytes=6 * GIB).fits
    assert dataclasses.replace(plan, usable_bytes=plan.needed_bytes).fits


def test_the_figure_in_xlas_refusal_is_read():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (80.51G) exceeds "
        "available HBM (15.75G)."
    )
    assert needed_bytes(message) == round(80.51 * GIB)
    assert needed_bytes("RESOURCE_EXHAUSTED: something else") is None


def test_a_step_takes_as_long_as_the_longest_of_three_bounds():
    bounds = _plan().bounds
    assert bounds.compute == pytest.approx(10e-3)
    assert bounds.memory == pytest.approx(20e-3)
    assert bounds.interconnect == pytest.approx(2 * 7 / 8 * 400e6 / 100e9)
    assert (bounds.seconds, bounds.bound) == (bounds.memory, "memory")
    assert bounds.summed == pytest.approx(37e-3)


def test_the_run_is_its_steps_and_chip_hours_are_those_of_all_chips():
    plan = _plan()
    assert plan.subject.total_steps == 1000  # ten epochs of 100 steps
    assert plan.run_seconds == pytest.approx(20.0)
    assert plan.chip_hours == pytest.approx(8 * 20 / 3600)
    assert plan.images_per_second == pytest.approx(1024 / 20e-3)
    assert plan.utilisation == pytest.approx(1.5e12 / 20e-3 / 197e12)
    assert plan.evaluation_seconds == pytest.approx(10 * 3000 / (1024 / 20e-3) / 3)


def test_float32_is_held_against_the_peak_that_jax_computes_it_with():
    def of(place):
        return roofline(1e12, 0.0, (), place_named(place), "float32").compute

    assert of("a100") == pytest.approx(1 / 156)  # TF32
    assert of("v5e:1x1") == pytest.approx(1 / 197)  # bfloat16 products


@pytest.mark.parametrize(
    ("name", "chips", "links"),
    [
        ("v5e:1x1", 1, 0),
        ("v5e:2x4", 8, 2),  # a corner of a grid
        ("v5e:16x16", 256, 4),  # a torus
        ("v5e:8x16", 128, 3),  # a ring along one axis
        ("v4:2x2x1", 4, 2),
        ("v4:2x2x4", 16, 3),
        ("v5p:4x4x4", 64, 6),
        ("a100:8", 8, 1),
        ("h100", 1, 0),
    ],
)
def test_places_have_chips_and_ports(name, chips, links):
    place = place_named(name)
    assert (place.chips, place.links) == (chips, links)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5x:2x4", "did you mean .*'v5e'"),
        ("v5e", "a slice of v5e has 2 axes, such as v5e:2x4"),
        ("v5e:2x2x1", "2 axes"),
        ("v5p:2x2", "3 axes, such as v5p:2x2x1"),
        ("v5e:0x4", "2 axes"),
        ("v5e:32x32", "at most 16 chips along an axis"),
        ("a100:x", "such as a100:8"),
        ("a100:0", "such as a100:8"),
    ],
)
def test_places_that_are_none_are_told(name, told):
    with pytest.raises(InputError, match=told):
        place_named(name)


def test_every_chip_says_where_its_figures_are_published():
    for chip in (*TPUS.values(), *GPUS.values()):
        assert chip.source
        assert 50e12 < chip.bf16_flops < 2e15
        assert 1e11 < chip.memory_bandwidth < 1e13
        assert chip_named(chip.name.upper()) is chip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": LoopConfig(batch_size=1020)}, "multiples of the 8 chips"),
        ({"optim": OptimConfig(accumulation=256)}, r"1024 \(in 256 parts\)"),
        ({"optim": OptimConfig(accumulation=3)}, "accumulation=3 must divide"),
        ({"train": LoopConfig(batch_size=200_000)}, "larger than the training split"),
        ({"model": ModelConfig(virtual_batch_size=48)}, "virtual_batch_size=48 must divide"),
        (
            {"train": LoopConfig(batch_size=1024, class_weights="balanced"), "data": DataConfig(sampling="balanced")},
            "twice",
        ),
    ],
)
def test_batches_that_a_run_would_refuse_are_refused(changes, told):
    with pytest.raises(InputError, match=told):
        check_batches(dataclasses.replace(CONFIG, **changes), 102_400, 8, device="chip")


REFUSED = _plan(figures=None, needed=79 * GIB // 2)


def _by_guess(subject, place, say=None):
    """A plan of a change that needs as much as it was guessed to, plus a GiB for accumulation."""
    change = next(each for each in changes_of(REFUSED) if each.subject == subject)
    needed = round(change.expected_bytes) + (2 * GIB if change.kind == "accumulation" else 0)
    return _plan(subject=subject, needed=needed - GIB // 2)


def test_changes_are_the_mildest_that_may_fit_and_each_is_what_its_flags_say():
    made = {}
    for change in changes_of(REFUSED):
        made.setdefault(change.kind, []).append(change)
    # 37.5 GiB of maps and batches beside 2.5 fixed ones.
    assert [round(each.expected_bytes / GIB, 2) for each in made["accumulation"][:2]] == [21.25, 11.88]
    assert made["accumulation"][1].subject.config.optim.accumulation == 4
    assert made["batch"][0].flags == "--train.batch-size 512 --optim.peak-lr 0.2"
    assert made["batch"][0].subject.config.train.batch_size == 512
    assert all(each.subject.config.train.batch_size % 8 == 0 for each in made["batch"])
    assert made["fsdp"][0].subject.config.mesh.fsdp == 2
    assert made["fsdp"][-1].subject.config.mesh.fsdp == 8


def test_of_each_kind_changes_are_tried_until_one_fits():
    told: list[str] = []
    tried = candidates_of(REFUSED, told.append, make=_by_guess)
    flags = [each.change.flags for each in tried]
    # 4 parts were guessed to fit; with 2 GiB more they do (13.9 of 15), so 8 are not tried; fsdp cannot help.
    assert flags == [
        "--optim.accumulation 4",
        "--model.remat stage1 stage2",
        "--train.batch-size 256 --optim.peak-lr 0.1",
    ]
    assert all(each.plan.fits for each in tried)
    assert best(tried) is tried[0]
    assert told[0] == "trying --optim.accumulation 4"


def test_a_candidate_that_does_not_fit_after_all_is_followed_by_the_next():
    def make(subject, place, say=None):
        plan = _by_guess(subject, place)
        return dataclasses.replace(plan, program_bytes=plan.program_bytes + 2 * GIB)

    tried = [each for each in candidates_of(REFUSED, make=make) if each.change.kind == "accumulation"]
    assert [(each.change.flags[-1], each.plan.fits) for each in tried] == [("4", False), ("8", True)]


def test_a_change_of_what_fits_is_not_called_shorter_than_it():
    plan = _plan()
    slower = _plan(figures=dataclasses.replace(plan.figures, bytes_accessed=2 * plan.figures.bytes_accessed))
    change = next(changes_of(plan))
    assert advice_lines(plan, (Candidate(change, slower),))[-1] == "  shortest run that fits: as it is"
    assert advice_lines(slower, (Candidate(change, plan),))[-1] == f"  shortest run that fits: {change.flags}"


def test_what_a_config_has_already_is_not_advised():
    subject = SUBJECT.changed("model", remat=("stage1",)).changed("optim", lr_scaling="linear")
    changes = list(changes_of(_plan(figures=None, needed=30 * GIB, subject=subject)))
    assert "remat" not in {each.kind for each in changes}
    assert "--train.batch-size 512" in {each.flags for each in changes}, "the rate follows by itself"
    adaptive = SUBJECT.changed("optim", name="adamw", peak_lr=0.01)
    changes = list(changes_of(_plan(figures=None, needed=30 * GIB, subject=adaptive)))
    assert "--train.batch-size 256 --optim.peak-lr 0.005" in {each.flags for each in changes}, (
        "by the root of the batch"
    )
    resident = dataclasses.replace(SUBJECT, kind="resident").changed("model", dtype="float32")
    first, second, *_ = changes_of(_plan(figures=None, needed=30 * GIB, subject=resident))
    assert (first.subject.kind, second.subject.config.model.dtype) == ("streamed", "bfloat16")


def test_where_the_state_alone_does_not_fit_only_fsdp_is_tried():
    plan = dataclasses.replace(REFUSED, argument_bytes=18 * GIB, program_bytes=20 * GIB)
    tried = candidates_of(plan, make=lambda subject, place, say: _plan(subject=subject))
    assert [each.change.flags for each in tried] == ["--mesh.fsdp 2"]
    assert fewest_chips(plan) is None


def test_fewest_chips_hold_all_but_the_state_divided():
    # 37.5 GiB on each of 8, where 12.5 are left: three times as many chips.
    assert fewest_chips(REFUSED) == 24


def test_lines_say_fit_parts_bound_pace_and_run():
    text = "\n".join(lines_of(_plan()))
    assert "fits, 8.50 GiB to spare: 6.50 of 15.00 GiB a chip (43.3 %)" in text
    assert "state and batches 2.00 + temporary 4.00 + outputs 1.00 - in the place of inputs 1.00" in text
    assert "3 all-reduce among 8 chips, 400 MB a chip" in text
    assert "at least 20 ms a step, bound by memory: compute 10 ms, memory 20 ms, interconnect 7 ms" in text
    assert "at most 51,200 images/s (6,400 a chip), 38 % of the peak" in text
    assert "at least 20 s, 0.0444 chip-hours: 1,000 steps, 10 epochs of 102,400 examples" in text
    assert "10 evaluations of 3,000 come to it" in text


def test_lines_of_a_refused_program_say_by_how_much_and_what_fits():
    text = "\n".join([*lines_of(REFUSED), *advice_lines(REFUSED, candidates_of(REFUSED, make=_by_guess))])
    assert "DOES NOT FIT, by 25.00 GiB: 40.00 of 15.00 GiB a chip" in text
    assert "--optim.accumulation 4" in text
    assert "fits: 13.88 GiB" in text
    assert "shortest run that fits: --optim.accumulation 4" in text
    nothing = "\n".join(advice_lines(REFUSED, ()))
    assert "nothing was tried" in nothing
    assert "24 of these" in nothing


def test_json_is_plain_and_agrees_with_the_plan():
    import json

    plan = _plan()
    found = json.loads(json.dumps(to_json(plan, candidates_of(REFUSED, make=_by_guess))))
    assert found["fits"]
    assert found["step_seconds"]["bound"] == "memory"
    assert found["figures"]["collectives"][0]["kind"] == "all-reduce"
    assert found["run_hours"] == pytest.approx(plan.run_seconds / 3600)
    assert found["candidates"][0]["flags"] == "--optim.accumulation 4"
    assert "figures" not in to_json(REFUSED)


def test_a_plan_of_a_gpu_says_that_it_is_an_estimate():
    text = "\n".join(lines_of(_plan(place=place_named("a100:8"))))
    assert "an estimate" in text
    assert "about" in text
    assert "at least" not in text
    assert "keeps and moves more than one for a GPU" in text
    large = "\n".join(lines_of(_plan(place=place_named("a100:8"), needed=100 * GIB)))
    assert "MAY NOT FIT" in large, "a CPU's program needs more: no proof that a GPU's does not fit"
