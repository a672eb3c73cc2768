"""Collectives and turns of loops, from the text of compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.plan.program import Collective, collectives_of, loop_factors

LOOPS = """
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%body (arg: (s32[], f32[128])) -> (s32[], f32[128]) {
  %arg = (s32[], f32[128]{0:T(128)}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[128]{0:T(128)S(1)} get-tuple-element(%arg), index=1
  %reduced = f32[128]{0:T(128)} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%sum
  ROOT %next = (s32[], f32[128]{0}) tuple(%i, %reduced)
}

%condition (arg: (s32[], f32[128])) -> pred[] {
  %arg = (s32[], f32[128]{0}) parameter(0)
  %index = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %turns = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%index, %turns), direction=LT, metadata={op_name="while/cond/lt"}
}

ENTRY %main (p: (s32[], f32[128])) -> f32[256] {
  %p = (s32[], f32[128]{0}) parameter(0)
  %while = (s32[], f32[128]{0:T(128)}) while(%p), condition=%condition, body=%body
  %x = f32[128]{0} get-tuple-element(%while), index=1
  %started = (f32[128]{0}, f32[512]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %gathered = f32[512]{0} all-gather-done(%started)
  ROOT %scattered = f32[256]{0} reduce-scatter(%gathered), replica_groups={}, dimensions={0}, to_apply=%sum
}
"""


def test_collectives_in_a_loop_count_as_often_as_it_turns_and_starts_by_their_results():
    assert set(collectives_of(LOOPS, chips=8)) == {
        Collective("all-reduce", chips=2, count=5, bytes=5 * 128 * 4),
        Collective("all-gather", chips=4, count=1, bytes=512 * 4),
        Collective("reduce-scatter", chips=8, count=1, bytes=256 * 4),
    }


@pytest.mark.parametrize(
    ("groups", "chips"),
    [
        ("{}", 16),
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[2,8]<=[16]", 8),
        ("[8,2]<=[2,8]T(1,0)", 2),
        ("mesh['axis_0'=8,'axis_1'=2,'axis_2'=1] {'axis_0','axis_2'}", 8),
        ("mesh['data'=4,'fsdp'=4] {'fsdp'}", 4),
        ("mesh['x'=8,'y'=2] {'x':(1)4,'y'}", 8),
    ],
)
def test_groups_are_read_in_all_forms_that_xla_prints(groups, chips):
    line = f"  %r = f32[3]{{0}} all-reduce(%c), channel_id=1, replica_groups={groups}, use_global_device_ids=true"
    assert collectives_of(line, chips=16) == (Collective("all-reduce", chips, 1, 12),)


def test_a_collective_of_one_chip_alone_is_none():
    line = "  %r = f32[3]{0} all-reduce(%c), replica_groups={{0},{1}}, to_apply=%sum"
    assert collectives_of(line, chips=2) == ()


def test_bytes_sent_are_those_of_a_ring():
    # Of 8 chips: a ring passes 7 of 8 parts round, an all-reduce twice.
    assert Collective("all-reduce", 8, 1, 800).sent_bytes == 2 * 700
    assert Collective("all-gather", 8, 1, 800).sent_bytes == 700
    assert Collective("reduce-scatter", 8, 1, 100).sent_bytes == 700
    assert Collective("collective-permute", 8, 1, 800).sent_bytes == 800


def test_turns_of_a_loop_multiply_its_products_and_bytes_alone():
    kernel = "f32[3,3,8,8]{3,2,1,0}"
    image = "f32[1,4,4,8]{3,2,1,0}"
    program = LOOPS.replace(
        "  %reduced =",
        f"  %k = {kernel} constant({{...}})\n  %y = {image} constant({{...}})\n"
        f"  %c = {image} convolution(%y, %k), dim_labels=b01f_01io->b01f\n  %reduced =",
    )
    flops, moved = loop_factors(program)
    assert flops == 5.0  # all products are in the loop
    once, outside = 4 * (2 * 1 * 4 * 4 * 8 + 9 * 64) + 4 * 2 * 128, 4 * (128 + 128 + 512 + 128 + 512 + 512 + 512 + 256)
    condition = 1 + 4 + 4
    assert moved == pytest.approx((5 * (once + condition) + outside) / (once + condition + outside), rel=0.03)


def test_a_loop_with_a_number_of_turns_that_is_an_argument_counts_once():
    program = LOOPS.replace("%turns = s32[]{:T(128)} constant(5)", "%turns = s32[] get-tuple-element(%arg), index=0")
    assert loop_factors(program) == (1.0, 1.0)
    assert next(each for each in collectives_of(program, 8) if each.kind == "all-reduce").count == 1


def test_a_real_program_of_xla_is_read():
    """A scan of seven matrix products: XLA counts one, the text says seven."""

    def scanned(x, w):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ w), None), x, None, length=7)[0]

    shape = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    text = jax.jit(scanned).lower(shape, shape).compile().as_text()
    assert text
    _, moved = loop_factors(text)
    assert 3 < moved <= 7
