"""The convolution on CPU: the values of `lax.conv_general_dilated`, in the forms that XLA's CPU backend runs fast.

What is slow in XLA's own forms, and what stands here instead (docs/performance.md has the figures):

| where                        | XLA's own form               | here |
| gradient of the kernel       | `f01b_i01o->01bf`            | an NHWC convolution, some images at a time |
|   the same, 1x1              |                              | a matrix product |
| gradient of the input        | `b01f_01oi->b01f`            | an NHWC convolution with the turned kernel |
|   the same, strided          | over a map of mostly zeros   | one convolution a phase of the stride |
| maps smaller than the kernel | a loop without vectorisation | columns (im2col) times the kernel |

The first two are slow inside a loop of steps (jax-ml/jax issue 12868).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")
_CHUNK_BYTES = 4 * 2**20  # images and cotangents that stay in the cache while they are transposed
_MIN_CHUNK = 8  # images; with fewer the convolution that contracts them has too little to do
_LARGE_MAP = 2048  # pixels an image from which its own product pays, instead of one product over all images

Pads = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def conv_cpu(stride: int, padding: int, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution [N, H', W', O] of x [N, H, W, C] with kernel [K, K, C / groups, O].

    Its gradients are given by a rule of reverse mode, so forward mode (`jax.jvp`, `jax.hessian`) fails: use the plain
    path for that.
    """
    return _convolve(x, kernel, stride, ((padding, padding),) * 2, groups)


Saved = tuple[jax.Array, jax.Array]


def _forward(stride: int, padding: int, groups: int, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Saved]:
    return conv_cpu(stride, padding, groups, x, kernel), (x, kernel)


def _backward(stride: int, padding: int, groups: int, saved: Saved, dy: jax.Array) -> Saved:
    x, kernel = saved
    if not dy.size:  # no image, or a map without a pixel
        return jnp.zeros_like(x), jnp.zeros_like(kernel)
    dx = _input_gradient(dy, kernel, (x.shape[1], x.shape[2]), stride, padding, groups)
    return dx, _kernel_gradient(x, dy, kernel.shape[0], stride, padding, groups).astype(kernel.dtype)


conv_cpu.defvjp(_forward, _backward)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int) -> jax.Array:
    """A convolution by XLA; where a map is smaller than its kernel, which XLA leaves to a plain loop, by columns."""
    if groups == 1 and (x.shape[1] < kernel.shape[0] or x.shape[2] < kernel.shape[1]):
        columns = _columns(x, kernel.shape[:2], stride, pads)
        return lax.dot_general(columns, kernel.reshape(-1, kernel.shape[-1]), (((3,), (0,)), ((), ())))
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_NHWC, feature_group_count=groups
    )


def _columns(x: jax.Array, sides: tuple[int, ...], stride: int, pads: Pads) -> jax.Array:
    """The windows of x as columns [N, H', W', K · K · C], in the order of a kernel [K, K, C, O] (im2col)."""
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *[(*pad, 0) for pad in pads], (0, 0, 0)])
    ends = [size - side + 1 for size, side in zip(x.shape[1:3], sides, strict=True)]
    shifted = [
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(sides[0]) for j in range(sides[1])
    ]
    return jnp.concatenate(shifted, axis=-1)


def _input_gradient(
    dy: jax.Array, kernel: jax.Array, size: tuple[int, int], stride: int, padding: int, groups: int
) -> jax.Array:
    """Returns dL/dx [N, H, W, C]: for each phase of the stride a convolution of dy with some of the turned taps.

    Along one axis, dx[stride·u + r] is the sum over the taps i that equal r + padding modulo the stride, of
    dy[u + (r + padding - i) / stride] · kernel[i].
    """
    side, _, in_group, out_features = kernel.shape
    exchanged = kernel.reshape(side, side, in_group, groups, out_features // groups).transpose(0, 1, 4, 3, 2)
    exchanged = exchanged.reshape(side, side, out_features // groups, groups * in_group)
    lengths = [-(-length // stride) for length in size]  # of a phase
    rows = []
    for row in range(stride):
        phases = []
        for column in range(stride):
            part = exchanged[(row + padding) % stride :: stride, (column + padding) % stride :: stride][::-1, ::-1]
            pads = [
                _phase_pads(phase + padding, taps, length, out, stride)
                for phase, taps, length, out in zip((row, column), part.shape[:2], lengths, dy.shape[1:3], strict=True)
            ]
            if part.size:
                phases.append(_convolve(dy, part, 1, (pads[0], pads[1]), groups))
            else:  # a kernel smaller than the stride skips these pixels
                phases.append(jnp.zeros((len(dy), *lengths, exchanged.shape[-1]), dy.dtype))
        rows.append(jnp.stack(phases, axis=3))
    dx = jnp.stack(rows, axis=2)  # [N, H / stride, stride, W / stride, stride, C]
    n, h, _, w, _, c = dx.shape
    return dx.reshape(n, h * stride, w * stride, c)[:, : size[0], : size[1]]


def _phase_pads(place: int, taps: int, length: int, out: int, stride: int) -> tuple[int, int]:
    """The padding of `out` cotangents so that `taps` taps, the last of them at `place // stride`, give `length`."""
    near = taps - 1 - place // stride
    return near, length - 1 + taps - out - near


def _kernel_gradient(x: jax.Array, dy: jax.Array, side: int, stride: int, padding: int, groups: int) -> jax.Array:
    """Returns dL/dkernel [K, K, C / groups, O], summed over the images in float32 or wider."""
    if side == 1 and padding == 0 and groups == 1:
        return _product_gradient(x[:, ::stride, ::stride], dy)[None, None]
    contract = functools.partial(_contract_images, side=side, stride=stride, padding=padding, groups=groups)
    chunk = _chunk(x, dy)
    num_chunks = len(x) // chunk
    if num_chunks == 1:
        return contract(x, dy)
    # Chunk i takes images i, i + num_chunks, ...: so each image stays on the device that holds it.
    parts = [array.reshape(chunk, num_chunks, *array.shape[1:]) for array in (x, dy)]

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        return total + contract(*(lax.dynamic_index_in_dim(part, index, axis=1, keepdims=False) for part in parts))

    zeros = jnp.zeros((side, side, x.shape[-1] // groups, dy.shape[-1]), jnp.promote_types(x.dtype, jnp.float32))
    return lax.fori_loop(0, num_chunks, add, zeros)


def _chunk(x: jax.Array, dy: jax.Array) -> int:
    """How many images, a divisor of all, are transposed and contracted at a time."""
    n = len(x)
    wanted = _CHUNK_BYTES * n / (x.nbytes + dy.nbytes)
    sizes = [size for size in range(_MIN_CHUNK, n + 1) if n % size == 0] or [n]
    return min(sizes, key=lambda size: abs(size - wanted))


def _contract_images(x: jax.Array, dy: jax.Array, *, side: int, stride: int, padding: int, groups: int) -> jax.Array:
    """The gradient of a kernel as a convolution that contracts N, with C in the place of the batch.

    dkernel[i, j, c, o] = sum over n, p, q of x[n, stride·p + i - padding, stride·q + j - padding, c] · dy[n, p, q, o].
    """
    n, h, w, c = x.shape
    images = x.reshape(n, h, w, groups, c // groups).transpose(4, 1, 2, 3, 0)  # [C/G, H, W, G, N]
    images = images.reshape(c // groups, h, w, groups * n)
    cotangents = dy.transpose(1, 2, 0, 3)  # [H', W', N, O]
    # The far side is padded (or cropped) so that exactly K positions remain.
    far = [stride * (out - 1) + side - padding - size for out, size in zip(dy.shape[1:3], (h, w), strict=True)]
    gradient = lax.conv_general_dilated(
        images,
        cotangents,
        window_strides=(1, 1),
        padding=[(padding, far[0]), (padding, far[1])],
        rhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
        feature_group_count=groups,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )  # [C/G, K, K, O]
    return gradient.transpose(1, 2, 0, 3)


def _product_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient [C, O] of the kernel of a 1x1 convolution: x^T dy, an image at a time where maps are large."""
    n, h, w, c = x.shape
    out = dy.shape[-1]
    images = n if h * w >= _LARGE_MAP else 1
    rows = (x.reshape(images, -1, c), dy.reshape(images, -1, out))  # [images, pixels, C], [images, pixels, O]
    left, right = rows if c <= out else rows[::-1]  # the wider one on the right
    wide = jnp.promote_types(x.dtype, jnp.float32)
    products = lax.dot_general(left, right, (((1,), (1,)), ((0,), (0,))), preferred_element_type=wide)
    gradient = jnp.sum(products, axis=0)
    return gradient if c <= out else gradient.T
