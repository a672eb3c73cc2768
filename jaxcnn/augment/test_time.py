"""Several views of each image at test time, whose probabilities are averaged."""

import jax


def crops_and_flips(images: jax.Array, height: int, width: int, crops: int, flip: bool) -> list[jax.Array]:
    """Returns views [N, height, width, C] of images [N, H, W, C].

    Args:
      images: as large as the crops, or larger.
      height, width: of the crops.
      crops: 1: the centre; 5: the four corners and the centre (Krizhevsky et al. 2012, section 4.1).
      flip: whether each crop also comes mirrored.
    """
    h, w = images.shape[1:3]
    middle = ((h - height) // 2, (w - width) // 2)
    corners = [(0, 0), (0, w - width), (h - height, 0), (h - height, w - width)]
    places = [middle] if crops == 1 else [*corners, middle]
    views = [images[:, top : top + height, left : left + width] for top, left in places]
    return [*views, *(view[:, :, ::-1] for view in views)] if flip else views
