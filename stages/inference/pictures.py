"""Pictures of any kind and size, as the models take them: 32x32 pixels, RGB.

CIFAR-10's own images are from the web, each with its object large in the middle, and were scaled down to 32x32 pixels
(Krizhevsky, 2009, chapter 3). Accordingly, the centre square of a picture is scaled with
an antialiasing filter. A picture whose object is small or at the edge needs to be cropped by hand first.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.common.errors import ExpectedError

SIDE = 32
WHITE = (255, 255, 255, 255)


def files_in(places: list[str]) -> list[str]:
    """The files that are meant: a folder stands for the files in it, by name; "-" for standard input.

    Raises:
        ExpectedError: A folder is empty.
    """
    files: list[str] = []
    for place in places:
        if place != "-" and os.path.isdir(place):  # noqa: PTH112  pathlib raises for a name that is too long
            inside = sorted(str(file) for file in Path(place).iterdir() if file.is_file() and file.name[0] != ".")
            if not inside:
                raise ExpectedError(f"{place} has no files")
            files += inside
        else:
            files.append(place)
    return files


def read_picture(content: bytes, name: str) -> np.ndarray:
    """A picture as the models take it, of an animation its first frame.

    The camera's orientation (EXIF) is applied, transparent parts are white, and 16-bit greys are scaled to 8 bits.

    Args:
        content: A file of a format that Pillow reads, except EPS.
        name: Of the picture, for the message.

    Returns:
        uint8 (32, 32, 3).

    Raises:
        ExpectedError: It is no picture, a damaged one, or one of too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # on odd EXIF data
            with Image.open(io.BytesIO(content), formats=formats()) as picture:
                square = ImageOps.fit(to_rgb(upright(picture)), (SIDE, SIDE), Image.Resampling.BICUBIC)
    except UnidentifiedImageError:
        raise ExpectedError(f"{name} is no picture that Pillow reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ExpectedError(f"{name} has more than {limit} million pixels; scale it down") from None
    except Exception as error:  # each of Pillow's decoders raises what it likes
        raise ExpectedError(f"{name} is damaged ({' '.join(str(error).split()) or type(error).__name__})") from None
    return np.asarray(square)


def formats() -> list[str]:
    """What Pillow reads, without EPS: for that it starts Ghostscript, which runs the program in the file."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def upright(picture: Image.Image) -> Image.Image:
    """The picture, turned as the camera was held; as it is where the EXIF data is damaged."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # the EXIF reader raises what it likes
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits for each of red, green and blue."""
    if picture.mode.startswith(("I", "F")):  # greys in 16 or 32 bits
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        # Of 32 bits the range is not known: integers are mostly 16-bit pictures, other numbers often 0 to 1.
        ranges = {"I": [255.0], "F": [1.0, 255.0]}.get(picture.mode, [])
        highest = next((end for end in ranges if values.max(initial=0) <= end), 65535.0)
        picture = Image.fromarray((255 * values / highest).clip(0, 255).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture)
    return picture.convert("RGB")
