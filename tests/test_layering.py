"""Who may import whom: a file imports only from a lower rank, or from files of its own package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RANKS = {
    "errors": 0, "config": 0, "config_augment": 0, "config_features": 0, "config_health": 0,
    "config_mesh": 0, "config_optim": 0, "config_strict": 0, "config_reader": 0, "paths": 0, "runtime": 0, "whole": 0,
    "interruption": 0, "processes": 0,
    "models": 1, "data": 1, "augment": 1,
    "training": 2, "orbax_threads": 2,
    "mesh": 3, "checkpoint": 3, "curves": 3, "diagnosis": 3, "gap": 3, "page": 3, "confusion": 3, "sheets": 3,
    "learning_curves": 3, "pace": 3, "progress": 3, "trace": 3,
    "run_folder": 4, "drawings": 4, "comparison": 4, "weights": 4, "writer": 4,
    "network": 5, "start": 5, "evaluation": 5, "inputs": 5, "phases": 5, "feature_cache": 5, "build": 5,
    "job": 5, "certificate": 5, "saves": 5, "boundaries": 5,
    "monitor": 5, "nonfinite": 5, "gap_measurement": 5, "figures": 5,
    "receipt": 6, "loop": 6, "preview": 6,
    "predict": 7, "plan": 7, "replay": 7, "inspection": 7,
    "tuning": 8, "report": 8, "export": 8,
    "studies": 9,
    "cli": 10, "__main__": 11,
}  # fmt: skip
PACKAGE = ROOT / "jaxcnn"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def unit_of(path: Path) -> str:
    """The package or module directly below jaxcnn that a file belongs to."""
    part = path.relative_to(ROOT / "jaxcnn").parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_import_from_lower_ranks_only(path: Path) -> None:
    own = unit_of(path)
    assert own in RANKS, f"{own} has no rank: add it here and to docs/architecture.md"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "jaxcnn" and len(parts) > 1 and parts[1] in RANKS and parts[1] != own:
            peers = RANKS[own] == RANKS[parts[1]] and RANKS[own] in (0, 3, 4, 5)
            assert RANKS[parts[1]] < RANKS[own] or peers, f"{own} [{RANKS[own]}] imports {parts[1]} [{RANKS[parts[1]]}]"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_data_imports_tfds_and_grain(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert unit_of(path) == "data" or not roots & {"tensorflow_datasets", "grain"}
    assert "tensorflow" not in roots


def test_ranks_are_those_of_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for unit, rank in RANKS.items():
        assert f"[{rank}]" in next(
            line for line in page.splitlines() if line.strip().startswith((f"{unit}.py", f"{unit}/"))
        )


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("jaxcnn", ["jax", "numpy", "flax", "tensorflow_datasets", "orbax", "matplotlib"]),
        ("jaxcnn.models", ["tensorflow_datasets", "orbax", "matplotlib", "optax", "tyro", "pydantic"]),
        ("jaxcnn.predict", ["tensorflow", "matplotlib", "tyro"]),
    ],
)
def test_imports_stay_light(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_knows_nothing_of_its_benchmarks(path: Path) -> None:
    assert "benchmarks" not in {name.split(".")[0] for name in imported(path)}


def test_benchmarks_import_heavy_packages_only_in_workers() -> None:
    code = (
        "import sys, benchmarks.steps, benchmarks.compiling, benchmarks.worker, benchmarks.figure; print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"jax", "flax", "torch", "matplotlib"} & set(out.stdout.split())


@pytest.mark.parametrize("path", FILES + BENCHMARKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name}"
