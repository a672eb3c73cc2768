"""Names of leaves: globs, split and merge."""

import numpy as np
import pytest

from jaxcnn.errors import InputError
from jaxcnn.paths import GlobRule, flatten, merge, split, unflatten

TREE = {
    "backbone": {
        "stem": {"conv": {"kernel": 1}},
        "stage1": {"block1": {"conv1": {"kernel": 2}, "norm1": {"scale": 3, "bias": 4}}},
        "stage2": {"block1": {"conv1": {"kernel": 5}}},
    },
    "head": {"kernel": 6, "bias": 7},
}
PATHS = list(flatten(TREE))


def chosen(*patterns: str) -> set[int]:
    rule = GlobRule(patterns)
    return {value for path, value in flatten(TREE).items() if rule.matches(path)}


@pytest.mark.parametrize(
    ("patterns", "values"),
    [
        ((), set()),
        (("backbone/**",), {1, 2, 3, 4, 5}),
        (("**",), {1, 2, 3, 4, 5, 6, 7}),
        (("head/*",), {6, 7}),
        (("*/kernel",), {6}),  # * is one segment
        (("**/kernel",), {1, 2, 5, 6}),
        (("backbone/stage?/**",), {2, 3, 4, 5}),
        (("backbone/stage1/**/scale",), {3}),
        (("backbone/**", "!backbone/stage2/**"), {1, 2, 3, 4}),
        (("backbone/**", "!backbone/**", "backbone/stem/**"), {1}),  # the last match wins
        (("!head/**", "**"), {1, 2, 3, 4, 5, 6, 7}),
        (("backbone",), set()),  # a branch is no leaf
        (("backbone/**/norm*/*",), {3, 4}),
    ],
)
def test_globs_choose_leaves(patterns: tuple[str, ...], values: set[int]) -> None:
    assert chosen(*patterns) == values


def test_special_characters_of_regular_expressions_are_literal() -> None:
    assert GlobRule(("a.b/k",)).matches("a.b/k")
    assert not GlobRule(("a.b/k",)).matches("axb/k")


def test_split_and_merge_are_inverse() -> None:
    outside, inside = split(TREE, GlobRule(("backbone/**", "!**/norm1/*")))
    assert set(flatten(inside).values()) == {1, 2, 5}
    assert flatten(merge(outside, inside)) == {path: flatten(TREE)[path] for path in sorted(PATHS)}


def test_split_passes_leaves_without_copying() -> None:
    leaf = np.zeros(3)
    assert split({"a": {"b": leaf}}, GlobRule(("**",)))[1]["a"]["b"] is leaf


def test_unflatten_is_the_inverse_of_flatten() -> None:
    assert unflatten(flatten(TREE)) == TREE


def test_a_glob_that_matches_nothing_names_the_nearest_paths() -> None:
    with pytest.raises(InputError, match=r"freeze: 'backbone/stag1/\*\*' matches no parameter; .*backbone/stage1"):
        GlobRule(("backbone/stag1/**",)).check(PATHS, "freeze")


def test_rules_are_hashable_and_compare_by_value() -> None:
    assert len({GlobRule(("a",)), GlobRule(("a",)), GlobRule(("b",))}) == 2
