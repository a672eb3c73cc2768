"""Configs: documented fields, strict reading, one line for a mistake."""

import ast
import dataclasses
from pathlib import Path

import pytest

from jaxcnn import config as config_module
from jaxcnn.config import LoopConfig, ModelConfig, TrainConfig
from jaxcnn.config_reader import check, load_config, parse_json, read_json, to_json
from jaxcnn.errors import InputError

ROOT = Path(__file__).parent.parent


def test_the_quickstart_file_returns_the_defaults() -> None:
    assert load_config(ROOT / "configs" / "quickstart.py") == TrainConfig()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_file_loads_and_is_named_after_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_configs_are_hashable_and_survive_json() -> None:
    config = TrainConfig(freeze=("backbone/**", "!backbone/stage4/**"), model=ModelConfig(width=8))
    assert hash(config) == hash(dataclasses.replace(config))
    assert parse_json(TrainConfig, to_json(config), "x") == config


def test_every_field_is_documented() -> None:
    module = ast.parse(Path(config_module.__file__).read_text())
    for node in (node for node in module.body if isinstance(node, ast.ClassDef) and node.name != "Strict"):
        assert ast.get_docstring(node), node.name
        for place, line in enumerate(node.body):
            if isinstance(line, ast.AnnAssign):
                following = node.body[place + 1]
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert documented, f"{node.name}.{line.target.id}"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"peak_lr"', '"peek_lr"', "unknown field optim.peek_lr; did you mean 'peak_lr'?"),
        ('"batch_size": 128', '"batch_size": 0', "train.batch_size=0: input should be greater than or equal to 1"),
        ('"batch_size": 128', '"batch_size": "128"', "train.batch_size='128': input should be a valid integer"),
        ('"epochs": 15.0', '"epochs": true', "train.epochs=True: input should be a valid number"),
        ('"norm": null', '"norm": "bach"', "did you mean 'batch'?"),
        ('"freeze": []', '"freeze": "head"', "freeze='head': input should be a valid array"),
        ('"seed": 0', '"seed": -1', "seed=-1"),
        ("{", "[", "Invalid JSON"),
    ],
)
def test_json_is_read_strictly(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "config.json"
    config = dataclasses.replace(TrainConfig(), train=LoopConfig(epochs=15.0, batch_size=128))
    text = to_json(config)
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=r"config\.json") as failure:
        read_json(TrainConfig, file)
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)


IMPORT = "from jaxcnn.config import *\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def get_config(:\n", r"x.py:1: invalid syntax"),
        ("import nothing_of_the_kind\n", r"x.py:1: ModuleNotFoundError"),
        (IMPORT + "def get_config():\n    return 1 / 0\n", r"x.py:3: ZeroDivisionError"),
        (IMPORT + "def get_config():\n    return TrainConfig(sed=1)\n", r"x.py:3: .*'sed'; did you mean 'seed'"),
        ("config = 1\n", r"x.py has no function get_config"),
        ("def get_config():\n    return 1\n", r"returned int, not a jaxcnn.TrainConfig"),
        (
            IMPORT + "def get_config():\n    return TrainConfig(seed='1')\n",
            r"x.py: seed='1': input should",
        ),
        (IMPORT + "def get_config():\n    return TrainConfig(optim=OptimConfig(peak_lr=-1))\n", r"optim.peak_lr=-1"),
        ("raise SystemExit(3)\n", r"x.py:1: SystemExit"),
    ],
)
def test_a_mistake_in_a_config_file_is_one_line_with_its_place(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "x.py").write_text(source)
    with pytest.raises(InputError, match=message) as failure:
        load_config(tmp_path / "x.py")
    assert "\n" not in str(failure.value)


def test_a_missing_config_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "quickstart.py").write_text("")
    with pytest.raises(InputError, match=r"no config file .*quikstart.py; did you mean '.*quickstart.py'"):
        load_config(tmp_path / "quikstart.py")


def test_lists_in_a_config_become_tuples() -> None:
    assert check(TrainConfig(freeze=["head/*"]), "x").freeze == ("head/*",)  # type: ignore[arg-type]


def test_the_json_of_a_run_is_not_run_as_python(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"init_from": null}')
    with pytest.raises(InputError, match="name its folder instead"):
        load_config(tmp_path / "config.json")
