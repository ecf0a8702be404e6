"""Images in memory, whatever they are kept in, as one array."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.errors import InputError

Picture = NDArray[np.uint8] | torch.Tensor | Image.Image
"""(H, W, 3) uint8 of NumPy, (3, H, W) or (H, W, 3) uint8 of torch, or an image of Pillow."""

_COLOURS = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")
"""Of Pillow's modes, those with 8 bits or fewer."""


def rgb_pixels(picture: Picture) -> NDArray[np.uint8]:
    """``picture`` as (H, W, 3) uint8 RGB; without copying where it is that.

    Raises:
        InputError: it is no such image; says how it becomes one.
    """
    pixels: NDArray[np.generic]
    if isinstance(picture, Image.Image):
        if picture.mode not in _COLOURS:
            raise InputError(f"image: of mode {picture.mode}: give one of 8 bits, such as RGB")
        pixels = np.asarray(picture.convert("RGB"))
    elif isinstance(picture, torch.Tensor):
        if picture.dtype == torch.bfloat16:  # which NumPy has not
            picture = picture.float()
        pixels = picture.detach().cpu().numpy()
        if pixels.ndim == 3 and pixels.shape[0] == 3:
            pixels = pixels.transpose(1, 2, 0)
    elif isinstance(picture, np.ndarray):
        pixels = picture
    else:
        raise InputError(f"image: a {type(picture).__name__}, not an array, a tensor or a picture")
    if pixels.dtype != np.uint8:
        raise InputError(
            f"image: of {pixels.dtype}, but images are uint8 in 0..255: scale and convert it"
        )
    shape = pixels.shape
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        remedy = "give (height, width, 3), RGB"
        if len(shape) == 2:
            remedy = "grey becomes RGB by numpy.stack([image] * 3, axis=-1)"
        elif len(shape) == 3 and shape[0] == 3:
            remedy = "give image.transpose(1, 2, 0)"
        elif len(shape) == 3 and shape[2] == 4:
            remedy = "leave alpha out: image[..., :3]"
        raise InputError(f"image: of shape {shape}: {remedy}")
    return cast("NDArray[np.uint8]", pixels)
