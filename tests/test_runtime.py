"""How networks are compiled on this machine."""

import jax
import jax.numpy as jnp
import pytest

from jaxcnn import runtime
from jaxcnn.models.conv import conv


def given_to_ynnpack(function, options: dict[str, str]) -> list[str]:
    """The computations that XLA gives to YNNPACK, which is single-threaded for convolutions."""
    jitted = jax.jit(function, compiler_options=options)
    text = jitted.lower(jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32))).compile().as_text()
    names = [line.split("calls=%")[1].split(",")[0] for line in text.splitlines() if "__ynn_fusion" in line]
    return [text.split(f"%{name} (")[1].split("\n}\n")[0] for name in names]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the CPU backend")
def test_convolutions_on_cpu_are_not_given_to_ynnpack() -> None:
    def mean(x, kernel):  # as at the end of a network
        return conv(x, kernel, 1, 1).mean((1, 2))

    def normalised(x, kernel):  # as in training
        y = conv(x, kernel, 1, 1)
        return y - y.mean((0, 1, 2))

    for function, training in ((mean, False), (normalised, True)):
        options = runtime.compiler_options(training=training)
        assert not any(" convolution(" in program for program in given_to_ynnpack(function, options))
        assert any(" convolution(" in program for program in given_to_ynnpack(function, {}))  # else no reason for it


def test_an_xla_without_the_option_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.compiler_options.cache_clear()
    jit = jax.jit

    def refuse(function, compiler_options=None, **kwargs):
        return jit(function, compiler_options={"xla_no_such_option": "1"} if compiler_options else None, **kwargs)

    monkeypatch.setattr(jax, "jit", refuse)
    assert runtime.compiler_options() == {}
    runtime.compiler_options.cache_clear()


def test_other_backends_get_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.compiler_options.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert runtime.compiler_options() == {}
    runtime.compiler_options.cache_clear()
