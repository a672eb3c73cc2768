"""Where and with what something was measured."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "torch", "numpy"),
    *("grain", "opencv-python-headless", "pillow", "torchvision", "tensorflow-cpu"),
)
ROOT = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    """Returns processor, memory, system, versions, card, date and commit."""
    return {
        "cpu": _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": gpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def gpu_name() -> str | None:
    """Returns the name of the first card, or none."""
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines()[0].strip() if names else None


def one_line(machine: dict[str, Any]) -> str:
    """Returns what stands under a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    card = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"{card}{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; Python {machine['python']}, "
        f"{versions}; commit {machine['commit']}, {machine['date'][:10]}"
    )


def _commit() -> str:
    """The commit of the checkout, with a + where tracked files differ from it."""
    commit = _output("git", "rev-parse", "--short", "HEAD")
    return commit + ("+" if _output("git", "status", "--porcelain", "--untracked-files=no") else "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first(pattern: str, file: str) -> str | None:
    try:
        found = re.search(pattern, Path(file).read_text())
    except OSError:
        return None
    return found[1].strip() if found else None


def _output(*command: str) -> str:
    """What a program prints; nothing where there is no such program or it fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
