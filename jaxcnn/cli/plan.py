"""`jaxcnn plan`: whether a run fits chips that are not here, what a step costs there, and how long the run takes."""

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

from jaxcnn.errors import InputError

_EPILOG = """examples:
  jaxcnn plan --config configs/imagenet_resnet50.py --topology v5e:2x4 v5p:2x2x1
  jaxcnn plan --config configs/imagenet_resnet50.py --topology v5e:16x16 --train.batch-size 32768
  jaxcnn plan --config configs/imagenet_vgg16.py --gpu a100:8 --mesh.fsdp 8
  jaxcnn plan runs/cifar10 --topology v6e:1x1 --json

TPU slices are compiled for by libtpu on this machine (pip install -e ".[tpu]"), minutes each the first time; no TPU is
needed. Times are the least that published peaks allow. GPUs are estimated from the program as it is compiled for a CPU,
which keeps and moves more: a GPU may need a third of that memory and half of that time (docs/planning.md)."""


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code: 0 also where a run does not fit; the answer is the output."""
    arguments = list(argv)
    place = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    options.run = options.workdir or place
    names = [] if {"-h", "--help"} & set(rest) else _places(options)
    # The platform is chosen once, when JAX first asks for devices; a plan needs none but the CPU's.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from jaxcnn import runtime

    runtime.quiet_libraries()
    log = runtime.set_up_logging()
    from jaxcnn.plan.advice import candidates_of
    from jaxcnn.plan.planning import plan_of
    from jaxcnn.plan.rendering import advice_lines, lines_of, to_json
    from jaxcnn.plan.topology import place_named

    places = [place_named(name) for name in names]
    subject = _subject(options, rest, parser)
    for note in subject.notes:
        log.info(f"note: {note}")
    found = []
    for each in places:
        plan = plan_of(subject, each, log.info)
        if not options.json:
            print("\n".join(lines_of(plan)), flush=True)
        wanted = options.advise == "always" or (options.advise == "auto" and not plan.fits)
        candidates = candidates_of(plan, log.info) if wanted else ()
        if wanted and not options.json:
            print("\n".join(advice_lines(plan, candidates)), flush=True)
        found.append(to_json(plan, candidates))
    if options.json:
        print(json.dumps({"plans": found}))
    return 0


def _places(options: Any) -> list[str]:
    """Names of the chips; raises InputError where there are none, or nothing to plan."""
    if options.run is not None and options.config is not None:
        raise InputError(f"plan takes {options.run} or --config {options.config}, not both")
    if options.run is None and options.config is None:
        raise InputError("plan what? --config FILE, or a run folder")
    names = [*options.topology, *options.gpu]
    if not names:
        raise InputError("plan for which chips? --topology v5e:2x4, or --gpu a100:8")
    for flag, most in (("image_size", 2**14), ("classes", 10**6), ("examples", 10**12)):
        value = getattr(options, flag)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"--{flag.replace('_', '-')} {value}: at least 1, at most {most:,}")
    return names


def _subject(options: Any, rest: list[str], parser: argparse.ArgumentParser) -> Any:
    from jaxcnn.cli.train import parse_config
    from jaxcnn.config import TrainConfig
    from jaxcnn.config_reader import load_config
    from jaxcnn.plan.subject import subject_of, subject_of_run
    from jaxcnn.run_folder import RunFolder

    if options.run is None:
        default = load_config(options.config) if options.config else TrainConfig()
        config = parse_config(default, rest, parser, "jaxcnn plan")
        return subject_of(config, options.image_size, options.classes, options.examples)
    if options.image_size or options.classes:
        raise InputError(f"--image-size and --classes are for --config alone: {options.run} has its own")
    folder = RunFolder(options.run)
    config = parse_config(folder.config, rest, parser, "jaxcnn plan")
    return subject_of_run(folder, config, options.examples)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxcnn plan",
        usage=argparse.SUPPRESS,
        description=f"{__doc__}\n\nusage: jaxcnn plan RUN | --config FILE [--FIELD VALUE ...] --topology NAME ...\n",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what")
    what.add_argument("--config", metavar="FILE", help="Python file with get_config(); fields below override it")
    what.add_argument("--workdir", metavar="RUN", help="a run folder, whose config it is")
    what.add_argument("--image-size", type=int, metavar="PX", help="side of the input, without the data")
    what.add_argument("--classes", type=int, metavar="N", help="classes of the head, without the data")
    what.add_argument("--examples", type=int, metavar="N", help="training examples, without the data")
    where = parser.add_argument_group("where")
    where.add_argument("--topology", nargs="+", default=[], metavar="NAME",
                       help="TPU slices, such as v5e:2x4 v5e:16x16 v4:2x2x4 v5p:2x2x1 v6e:2x4")  # fmt: skip
    where.add_argument("--gpu", nargs="+", default=[], metavar="NAME[:COUNT]",
                       help="GPUs, as an estimate: a100 a100-40 h100 h200 l4 t4 rtx4090 rtx3090")  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument("--advise", choices=("auto", "always", "never"), default="auto",
                     help="plan changes that need less memory too; auto: where the run does not fit")  # fmt: skip
    out.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser
