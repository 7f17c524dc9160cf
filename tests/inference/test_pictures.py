"""Pictures of every kind become 32x32 pixels, and what is no picture is said in one line."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import ExpectedError
from stages.inference.pictures import files_in, read_picture

RED, BLUE = (200, 30, 40), (20, 40, 220)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(size: tuple[int, int] = (40, 60), color: tuple[int, ...] = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, color)


def halves() -> Image.Image:
    """64x64, its upper half red and its lower half blue."""
    picture = plain((64, 64))
    picture.paste(BLUE, (0, 32, 64, 64))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "ICO", "TGA"])
def test_any_format(kind: str) -> None:
    pixels = read_picture(encoded(plain(), kind), "x")
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert np.abs(pixels.astype(int) - RED).max() <= 4  # JPEG, and GIF's palette


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBA", "LA"])
def test_any_mode(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "LAB", "YCbCr") else "PNG"
    picture = Image.new("RGB", (50, 50), (255, 255, 255))
    converted = picture.convert("L").convert(mode) if mode in ("LA", "1") else picture.convert(mode)
    pixels = read_picture(encoded(converted if mode != "HSV" else converted.convert("RGB"), kind), "x")
    assert pixels.min() >= 252


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (31, 500), (1000, 20), (3000, 2000)])
def test_any_size(size: tuple[int, int]) -> None:
    assert (read_picture(encoded(plain(size), "PNG"), "x") == RED).all()


def test_a_picture_of_cifar_10_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(read_picture(encoded(Image.fromarray(pixels), "PNG"), "x"), pixels)


def test_the_centre_square_is_taken() -> None:
    picture = plain((300, 100), BLUE)
    picture.paste(RED, (100, 0, 200, 100))
    assert (read_picture(encoded(picture, "PNG"), "x")[2:-2, 2:-2] == RED).all()


def test_scaling_down_averages() -> None:
    board = np.indices((320, 320)).sum(axis=0) % 2 * 255
    pixels = read_picture(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"), "x")
    assert np.abs(pixels.astype(int) - 127).max() <= 3


@pytest.mark.parametrize(("orientation", "upper"), [(1, RED), (3, BLUE)])
def test_the_camera_s_orientation_is_applied(orientation: int, upper: tuple[int, ...]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_picture(encoded(halves(), "PNG", exif=exif), "x")
    assert (pixels[:14] == upper).all()


def test_what_is_transparent_is_white() -> None:
    assert (read_picture(encoded(plain(color=(*RED, 0), mode="RGBA"), "PNG"), "x") == 255).all()
    assert (read_picture(encoded(plain(color=(*RED, 255), mode="RGBA"), "PNG"), "x") == RED).all()
    palette = plain().quantize(4)
    assert (read_picture(encoded(palette, "PNG", transparency=palette.getpixel((0, 0))), "x") == 255).all()


def test_16_bit_greys_are_scaled() -> None:
    grey = Image.fromarray(np.full((40, 40), 0x8080, dtype=np.uint16))
    assert (read_picture(encoded(grey, "PNG"), "x") == 0x80).all()


@pytest.mark.parametrize(("white", "seen"), [(1.0, 255), (255.0, 255), (65535.0, 255)])
def test_floating_point_greys_are_scaled_by_their_range(white: float, seen: int) -> None:
    values = np.full((40, 40), white, np.float32)
    values[:, :20] = 0
    values[0, 0] = np.nan
    pixels = read_picture(encoded(Image.fromarray(values), "TIFF"), "x")
    assert (pixels[2:, :14] == 0).all()
    assert (pixels[2:, 18:] == seen).all()


def test_damaged_exif_data_only_loses_the_orientation() -> None:
    assert (read_picture(encoded(plain(), "PNG", exif=b"garbage"), "x") == RED).all()


def test_of_an_animation_the_first_frame() -> None:
    content = encoded(plain(), "GIF", save_all=True, append_images=[plain(color=BLUE)], duration=50)
    assert np.abs(read_picture(content, "x").astype(int) - RED).max() <= 4


def bomb(side: int) -> bytes:
    """A tiny PNG that claims to be huge."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PHOTO = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8)), "PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.png is no picture that Pillow reads"),
        (b"hello\n", "x.png is no picture that Pillow reads"),
        (encoded(plain(), "EPS"), "x.png is no picture that Pillow reads"),
        (PHOTO[:200], "x.png is damaged ("),
        (PHOTO[:-8000], "x.png is damaged ("),
        (PHOTO[:40] + b"\xff" * 60 + PHOTO[100:], "x.png is "),
        (encoded(plain(), "JPEG")[:200], "x.png is "),
        (encoded(plain(), "GIF")[:30], "x.png is "),
        (bomb(10_000), "x.png has more than 89 million pixels; scale it down"),
        (bomb(60_000), "x.png has more than 89 million pixels; scale it down"),
    ],
    ids=["empty", "text", "EPS", "cut", "cut late", "garbled", "cut JPEG", "cut GIF", "large", "bomb"],
)
def test_what_cannot_be_read_is_said_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(ExpectedError) as error:
        read_picture(content, "x.png")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    assert files_in([str(tmp_path), "c.png", "-"]) == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.png", "c.png", "-"]
    with pytest.raises(ExpectedError, match="deeper has no files"):
        files_in([str(tmp_path / "deeper")])
