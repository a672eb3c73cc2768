"""`jaxcnn inspect`: the parameter tree of a run, a config or a file of weights, and the difference of two of them."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn.errors import InputError

_EPILOG = """examples:
  jaxcnn inspect runs/cifar10 --depth 2
  jaxcnn inspect runs/cifar10@latest --step --filter '**/kernel' --sort -update_ratio
  jaxcnn inspect --config configs/quickstart.py --model.name resnet152 --image-size 224
  jaxcnn inspect runs/fine-tuned --diff resnet50.safetensors --sort path

columns: {columns}
columns with --diff: {diff}"""
_FALLBACK_WIDTH = 160  # where the output is no terminal


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    options, overrides = _options(list(argv))

    from jaxcnn import runtime

    runtime.quiet_libraries()
    runtime.set_up_logging()
    if options.values or options.step:
        runtime.enable_compilation_cache()
    if options.layers:
        from jaxcnn.cli.inspect_layers import show

        return show(options, None if options.config is None else _config_of(options, overrides))
    if options.pictures is not None:
        from jaxcnn.cli.inspect_pictures import draw

        return draw(options)
    if options.diff is not None:
        return _tell_difference(options)
    return _tell_leaves(options, overrides)


def _options(argv: list[str]) -> tuple[Any, list[str]]:
    """The options, and what is left for the config; raises InputError where they do not go together."""
    place = argv.pop(0) if argv and not argv[0].startswith("-") else None
    for index in range(len(argv) - 1):  # argparse would take the minus of a falling order for an option
        if argv[index] == "--sort" and argv[index + 1].startswith("-"):
            argv[index : index + 2] = [f"--sort={argv[index + 1]}"]
            break
    options, rest = _parser().parse_known_args(argv)
    if options.config is None and place is None and rest and not rest[0].startswith("-"):
        place = rest.pop(0)
    options.place = place
    if place is not None and options.config is not None:
        raise InputError(f"inspect takes {place} or --config {options.config}, not both")
    if place is None and options.config is None:
        raise InputError("inspect what? a run folder, a file of weights, or --config FILE")
    if options.config is None:
        if rest:
            raise InputError(f"{rest[0]}: not an option of inspect; fields of a config are for --config alone")
        for flag in ("values", "image_size", "num_classes"):
            if getattr(options, flag) and not (options.layers and flag == "image_size"):
                raise InputError(f"--{flag.replace('_', '-')} is for --config alone: {place} has its own")
    if options.diff is not None and (options.config is not None or options.step or options.html is not None):
        other = "--config" if options.config is not None else "--step" if options.step else "--html"
        raise InputError(f"--diff is of two runs or files, and does not go with {other}")
    _check_views(options)
    if options.json and options.csv == "-":
        raise InputError("--json and --csv both to standard output: give --csv a file")
    for flag in ("image_size", "num_classes"):
        if (value := getattr(options, flag)) is not None and value < 1:
            raise InputError(f"--{flag.replace('_', '-')} {value}: at least 1")
    return options, rest


def _check_views(options: Any) -> None:
    """Raises InputError where options are given that the view of layers or the pictures have no use for."""
    flags = (
        "layers",
        "pictures",
        "values",
        "step",
        "diff",
        "depth",
        "filter",
        "sort",
        "columns",
        "json",
        "csv",
        "html",
    )
    for view, kept in (("layers", ("depth", "json", "csv")), ("pictures", ("json",))):
        for flag in flags if getattr(options, view) else ():
            if flag != view and flag not in kept and getattr(options, flag):
                raise InputError(f"--{view} and --{flag} do not go together")
    if options.pictures is not None and options.config is not None:
        raise InputError("--pictures are of a run: a config has no weights to draw")


def _parser() -> argparse.ArgumentParser:
    from jaxcnn.inspection.columns import COLUMNS
    from jaxcnn.inspection.difference import COLUMNS as DIFF

    names = [" ".join(column.name for column in columns) for columns in (COLUMNS, DIFF)]
    parser = argparse.ArgumentParser(
        prog="jaxcnn inspect",
        usage="jaxcnn inspect RUN|FILE [options]\n       jaxcnn inspect --config FILE [--FIELD VALUE ...] [options]\n"
        "       jaxcnn inspect A --diff B [options]",
        description=f"{__doc__}\n\nRUN is a run folder, or RUN@best, RUN@latest, RUN@STEP; FILE a .safetensors, .pth "
        "or .h5, or hf-hub:OWNER/NAME.",
        epilog=_EPILOG.format(columns=names[0], diff=names[1]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what")
    what.add_argument("--config", metavar="FILE", help="a config: shapes only, nothing is allocated; --FIELD VALUE "
                      "overrides its fields as `train` does")  # fmt: skip
    what.add_argument("--values", action="store_true", help="draw the weights of --config, and show their figures")
    what.add_argument("--step", action="store_true",
                      help="show gradient and update of the step that comes next, on a batch of the data")  # fmt: skip
    what.add_argument(
        "--image-size", type=int, metavar="PX", help="side of the input of --config, without its data; of --layers, any"
    )
    what.add_argument("--num-classes", type=int, metavar="N", help="classes of --config, without its data")
    what.add_argument("--layers", action="store_true",
                      help="a row a module: output, parameters, FLOPs, activations, receptive field")  # fmt: skip
    what.add_argument("--pictures", metavar="DIR", help="filters, histograms and feature maps of a run, as PNG")
    what.add_argument("--checkpoint", default="best", metavar="best|latest|STEP",
                      help="of runs that do not say it themselves (default: best by validation top-1)")  # fmt: skip
    what.add_argument("--diff", metavar="B", help="what differs between two runs, checkpoints or files")
    table = parser.add_argument_group("table")
    table.add_argument("--depth", type=int, metavar="N", help="one row for all leaves below a path of N segments")
    table.add_argument("--filter", nargs="+", default=[], metavar="GLOB",
                       help="only these paths: * is one segment, ** any number, ! takes back")  # fmt: skip
    table.add_argument("--sort", metavar="COLUMN", help="by this column, rising; -COLUMN: falling")
    table.add_argument("--columns", metavar="A,B,C|all", help="which columns")
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="one JSON object on standard output")
    out.add_argument("--csv", nargs="?", const="-", metavar="FILE", help="CSV to a file, or to standard output")
    out.add_argument("--html", metavar="FILE", type=Path, help="one page with the table and the tree to unfold")
    return parser


def _tell_leaves(options: Any, overrides: list[str]) -> int:
    from jaxcnn.inspection.columns import COLUMNS, KEPT, totals_of, usual_columns
    from jaxcnn.inspection.html import check_viewer, write_page
    from jaxcnn.inspection.subject import of_place
    from jaxcnn.inspection.table import filtered, folded, ordered

    _check_columns(options, COLUMNS)
    if options.html is not None:
        check_viewer()
    if options.config is not None:
        subject = _of_config(options, overrides)
    else:
        subject = of_place(options.place, options.checkpoint, step=options.step)
    leaves = filtered(subject.leaves, options.filter)
    rows = ordered(folded(leaves, options.depth), COLUMNS, options.sort)
    totals = totals_of(leaves, subject.other_optimizer_bytes)
    sentences = _sentences(totals, "shown" if options.filter else "in all")
    if options.html is not None:
        told_of = [column for column in COLUMNS if any(column.of(row) is not None for row in rows)]
        write_page(options.html, subject, leaves, rows, _columns(options, COLUMNS, told_of), "; ".join(sentences))
    told = {"what": subject.name, "notes": subject.notes, "totals": totals}
    if _printed(options, told, rows, COLUMNS):
        return 0
    print(subject.name)
    for note in subject.notes:
        print(f"note: {note}")
    columns = _columns(options, COLUMNS, usual_columns(rows))
    print(f"\n{_as_text(options, rows, columns, KEPT)}\n")
    _print_modules(options, leaves)
    print("\n".join([*sentences, *([f"page: {options.html}"] if options.html else [])]))
    return 0


def _config_of(options: Any, overrides: list[str]) -> Any:
    from jaxcnn.cli.train import parse_config
    from jaxcnn.config_reader import load_config

    return parse_config(load_config(options.config), overrides, _parser(), prog="jaxcnn inspect")


def _of_config(options: Any, overrides: list[str]) -> Any:
    from jaxcnn.inspection.subject import of_config

    config = _config_of(options, overrides)
    return of_config(config, values=options.values, step=options.step, image_size=options.image_size,
                     num_classes=options.num_classes)  # fmt: skip


def _tell_difference(options: Any) -> int:
    from jaxcnn.inspection.difference import COLUMNS, KEPT, by_change, difference, summary
    from jaxcnn.inspection.table import filtered, folded, ordered

    _check_columns(options, COLUMNS)
    found = difference(options.place, options.diff, options.checkpoint)
    leaves = filtered(found.leaves, options.filter)
    rows = folded(leaves, options.depth)
    rows = ordered(rows, COLUMNS, options.sort) if options.sort else by_change(rows)
    told = {"a": found.a, "b": found.b, "notes": found.notes, "summary": summary(leaves)}
    if _printed(options, told, rows, COLUMNS):
        return 0
    print(f"A: {found.a}\nB: {found.b}")
    for note in found.notes:
        print(f"note: {note}")
    columns = _columns(options, COLUMNS, [column for column in COLUMNS if column.name != "size"])
    print(f"\n{_as_text(options, rows, columns, KEPT)}\n\n{told['summary']}")
    return 0


def _check_columns(options: Any, columns: Sequence[Any]) -> None:
    """Raises InputError for an unknown column or a depth of 0 before anything is read."""
    from jaxcnn.inspection.table import folded, ordered

    folded((), options.depth)
    ordered((), columns, options.sort)
    _columns(options, columns, ())


def _columns(options: Any, columns: Sequence[Any], usual: Sequence[Any]) -> Sequence[Any]:
    from jaxcnn.inspection.table import chosen

    if options.columns is None:
        return usual
    return columns if options.columns == "all" else chosen(columns, options.columns.split(","))


def _printed(options: Any, told: dict[str, Any], rows: Sequence[Any], columns: Sequence[Any]) -> bool:
    """Writes JSON or CSV where asked for, with all columns or the chosen ones, and returns whether that was all."""
    from jaxcnn.inspection.formats import as_csv, as_records
    from jaxcnn.whole import write_whole

    held = _columns(options, columns, columns)
    if options.csv is not None:
        text = as_csv(rows, held)
        if options.csv == "-":
            sys.stdout.write(text)
            return True
        try:
            write_whole(Path(options.csv), text)
        except OSError as error:
            raise InputError(f"--csv {options.csv}: {error.strerror}") from None
    if options.json:
        print(json.dumps({**told, "rows": as_records(rows, held)}, ensure_ascii=False))
    return options.json


def _as_text(options: Any, rows: Sequence[Any], columns: Sequence[Any], kept: Sequence[str]) -> str:
    from jaxcnn.inspection.formats import as_text

    width = None if options.columns else shutil.get_terminal_size((_FALLBACK_WIDTH, 24)).columns
    return as_text(rows, columns, width, kept)


def _print_modules(options: Any, leaves: Sequence[Any]) -> None:
    """Prints a row a top-level module, unless the table has them already."""
    from jaxcnn.inspection.columns import COLUMNS
    from jaxcnn.inspection.formats import as_text
    from jaxcnn.inspection.table import chosen, folded

    modules = folded(leaves, 1)
    if options.depth == 1 or len({row.path for row in modules}) == 1:
        return
    names = ["path", "kind", "leaves", "size", "bytes", "share", "state", "optimizer"]
    if all(row.kind == "tensor" for row in modules):
        names = ["path", "leaves", "size", "bytes", "share"]
    print(f"{as_text(modules, chosen(COLUMNS, names))}\n")


def _sentences(totals: dict[str, Any], where: str) -> list[str]:
    from jaxcnn.inspection.columns import bytes_text

    numbers = {name: f"{value:,}" for name, value in totals.items()}
    kinds = [f"{numbers[name]} {told}" for name, told in
             (("parameters", "parameters"), ("statistics", "running statistics"), ("tensors", "numbers"))
             if name in totals]  # fmt: skip
    lines = [f"{where}: {numbers['leaves']} leaves, {', '.join(kinds)}, {bytes_text(totals['bytes'])}"]
    if "trainable" in totals:
        lines.append(
            f"of the parameters {numbers['trainable']} train, {numbers['frozen']} are frozen, {numbers['decayed']} "
            f"are decayed; optimizer {bytes_text(totals['optimizer_bytes'])}"
        )
    return lines
