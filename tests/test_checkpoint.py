"""Checkpoints: what is kept, what is restored, and what happens when files are damaged or cannot be written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import processes
from jaxcnn.checkpoint import Checkpoints, checksum
from jaxcnn.errors import InputError, RunFailed


def trees(value: float) -> dict:
    return {"model": {"params": {"kernel": jnp.full((50, 40), value)}, "batch_stats": {}}, "average": {}}


def saved(folder, values: list[tuple[int, float | None]]) -> None:
    checkpoints = Checkpoints(folder)
    for step, top1 in values:
        checkpoints.save(step, trees(step), {"step": step}, None if top1 is None else {"top1": top1})
    checkpoints.close()


def test_latest_two_and_the_best_are_kept_also_across_processes(tmp_path) -> None:
    saved(tmp_path, [(1, 0.2), (2, 0.9), (3, 0.5)])
    saved(tmp_path, [(4, 0.6), (5, None), (6, 0.7)])
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best_step() == 2
    checkpoints.close()


def test_of_equal_accuracy_the_latest_is_best(tmp_path) -> None:
    saved(tmp_path, [(1, 0.9), (2, 0.9), (3, 0.8)])
    assert Checkpoints(tmp_path).best_step() == 2


def test_what_was_saved_is_restored(tmp_path) -> None:
    saved(tmp_path, [(7, None)])
    restored, progress = Checkpoints(tmp_path).restore(7, trees(0))
    np.testing.assert_array_equal(restored["model"]["params"]["kernel"], np.full((50, 40), 7.0))
    assert restored["average"] == {}
    assert progress == {"step": 7}


def test_an_array_may_be_donated_as_soon_as_save_returns(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    tree = {"model": {"w": jnp.arange(1_000_000.0)}}
    checkpoints.save(1, tree, {})
    jax.jit(lambda w: w * 0, donate_argnums=0)(tree["model"]["w"])
    checkpoints.wait()
    restored, _ = checkpoints.restore(1, {"model": {"w": jax.ShapeDtypeStruct((1_000_000,), jnp.float32)}})
    np.testing.assert_array_equal(restored["model"]["w"], np.arange(1_000_000.0))
    checkpoints.close()


def damage(folder, how: str) -> None:
    """Damages the largest data file of a checkpoint."""
    file = max((path for path in folder.rglob("d/*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 0x10
    file.write_bytes(content[: len(content) // 3] if how == "truncate" else content)
    if how == "remove":
        file.unlink()


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, how: str) -> None:
    folder = tmp_path / "checkpoints"
    rng = np.random.default_rng(0)
    checkpoints = Checkpoints(folder)
    kernels = {step: rng.normal(size=(300, 300)).astype(np.float32) for step in (1, 2)}
    for step, kernel in kernels.items():
        checkpoints.save(step, {"model": {"kernel": jnp.asarray(kernel)}}, {})
    checkpoints.close()
    damage(folder / "2", how)
    said: list[str] = []
    checkpoints = Checkpoints(folder)
    template = {"model": {"kernel": jax.ShapeDtypeStruct((300, 300), jnp.float32)}}
    restored = checkpoints.restore_newest(template, said.append)
    assert restored is not None
    np.testing.assert_array_equal(restored[0]["model"]["kernel"], kernels[1])
    assert len(said) == 1
    assert "checkpoint 2 is damaged" in said[0]
    assert (tmp_path / "damaged-2").is_dir()
    checkpoints.save(2, {"model": {"kernel": jnp.asarray(kernels[2])}}, {})  # the step can be written again
    checkpoints.close()
    assert Checkpoints(folder).steps() == [1, 2]


def test_all_damaged_is_an_error_each_time_and_nothing_is_moved(tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [(1, None), (2, None)])
    for step in ("1", "2"):
        damage(folder / step, "remove")
    for _ in range(2):
        with pytest.raises(InputError, match="all 2 checkpoints are damaged"):
            Checkpoints(folder).restore_newest(trees(0), lambda line: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


def test_a_damaged_best_falls_back_to_the_next_best(tmp_path, capfd) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [(1, 0.9), (2, 0.3), (3, 0.5)])
    damage(folder / "1", "truncate")
    said: list[str] = []
    restored, _, step = Checkpoints(folder, read_only=True).restore_best(trees(0), said.append)
    assert step == 3
    assert restored["model"]["params"]["kernel"][0, 0] == 3
    assert len(said) == 1
    assert "Traceback" not in capfd.readouterr().err


def test_a_checkpoint_that_replaces_one_of_its_step_may_be_cut_off_at_any_moment(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [(1, None), (2, None)])
    cut_off = Checkpoints(folder)
    monkeypatch.setattr(cut_off._manager, "save", lambda *args, **keywords: None)  # killed before anything is written
    cut_off.save(2, trees(20), {"step": 2, "evaluated": True}, {"top1": 0.5})
    assert [path.name for path in folder.glob("[0-9]*")] == ["1"]
    assert cut_off.on_disk() == [1, 2]
    again = Checkpoints(folder)
    restored, _ = again.restore(2, trees(0))
    assert restored["model"]["params"]["kernel"][0, 0] == 2
    again.save(2, trees(20), {"step": 2}, {"top1": 0.5})
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
    restored, _ = Checkpoints(folder).restore(2, trees(0))
    assert restored["model"]["params"]["kernel"][0, 0] == 20
    assert Checkpoints(folder).best_step() == 2


def test_a_folder_that_shows_late_what_the_first_process_sees_is_waited_for(tmp_path, monkeypatch) -> None:
    saved(tmp_path, [(1, None)])
    late = Checkpoints(tmp_path)
    saved(tmp_path, [(2, None)])  # as by another host: this one does not know of it

    monkeypatch.setattr(processes, "agree", lambda value, name: [1, 2])
    assert late.steps() == [1]
    restored = late.restore_newest(trees(0), lambda line: None)
    assert restored is not None
    assert restored[1] == {"step": 2}


def test_of_a_checkpoint_the_progress_alone_may_be_asked_for(tmp_path, monkeypatch) -> None:
    saved(tmp_path, [(7, None)])
    checkpoints = Checkpoints(tmp_path, read_only=True)
    read, asked = checkpoints._reader.restore, []
    monkeypatch.setattr(
        checkpoints._reader, "restore", lambda step, args: asked.extend(args.keys()) or read(step, args=args)
    )
    assert checkpoints.restore(7, {}) == ({}, {"step": 7})
    assert asked == ["progress"], "asked for nothing, orbax reads all, which it cannot on other devices"


def test_no_checkpoint_is_none_and_an_unknown_step_is_an_error(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_newest(trees(0), lambda line: None) is None
    with pytest.raises(InputError, match="no checkpoint at step 3; there are none"):
        checkpoints.restore(3, trees(0))


def test_another_form_is_an_error_that_moves_nothing(tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, [(1, None), (2, None)])
    renamed = {"model": {"params": {"weight": jnp.zeros((50, 40))}, "batch_stats": {}}}
    reshaped = {"model": {"params": {"kernel": jnp.zeros((40, 50))}, "batch_stats": {}}}
    for other in (renamed, reshaped):
        with pytest.raises(InputError, match=r"checkpoint 2 is of another network or optimizer \(model\)"):
            Checkpoints(folder).restore_newest(other, lambda line: None)
    assert Checkpoints(folder).steps() == [1, 2]


def test_a_failing_save_is_one_line_and_leaves_the_last_checkpoint(tmp_path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, trees(1), {})
    checkpoints.wait()

    def no_space(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", no_space)
    with pytest.raises(RunFailed, match=r"step 2 .* \(no space left on the device\); those of steps 1 are"):
        checkpoints.save(2, trees(2), {})
    assert Checkpoints(tmp_path).restore(1, trees(0))[1] == {}


def test_the_checksum_sees_values_order_and_type() -> None:
    base = {"a": np.arange(4.0), "b": np.zeros((2, 2))}
    assert checksum(base) == checksum({"b": base["b"], "a": base["a"].copy()})
    assert checksum(base) != checksum({**base, "a": base["a"] + np.array([0, 0, 1e-9, 0])})
    assert checksum({"step": np.int32(3)}) != checksum({"step": np.int32(4)})
