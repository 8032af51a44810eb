import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg
from av.video.reformatter import VideoReformatter

from stores.rejections import ClipRejected
from transforms import picture
from transforms.images import encode_rgb
from transforms.picture import Orientation, orientation, to_rgb, upright_size

RGB = (200, 60, 30)
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
LIMITED, FULL = 1, 2


def ycbcr(rgb, matrix, color_range, bits=8):
    """Y, Cb, Cr codes of a colour, from the definition in ITU-R BT.601/709/2020."""
    kr, kb = matrix
    r, g, b = (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    if color_range == FULL:
        top = 2**bits - 1
        return round(y * top), round(cb * top) + 2 ** (bits - 1), round(cr * top) + 2 ** (bits - 1)
    step = 2 ** (bits - 8)
    return round((16 + 219 * y) * step), round((128 + 224 * cb) * step), round((128 + 224 * cr) * step)


def plain_picture(pix_fmt, values, *, width=64, height=48, dtype=np.uint8):
    result = av.VideoFrame(width, height, pix_fmt)
    for plane, value in zip(result.planes, values, strict=True):
        count = plane.buffer_size // np.dtype(dtype).itemsize
        plane.update(np.full(count, value, dtype).tobytes())
    return result


def colour_of(frame, width_px=40, height_px=30):
    rgb_HWC = to_rgb(frame, Orientation(), VideoReformatter(), width_px=width_px, height_px=height_px)
    assert rgb_HWC.shape == (height_px, width_px, 3)
    assert np.ptp(rgb_HWC, axis=(0, 1)).max() <= 1
    return rgb_HWC[height_px // 2, width_px // 2]


@pytest.mark.parametrize(
    ("pix_fmt", "colorspace", "color_range", "matrix"),
    [
        ("yuv420p", 2, 0, BT601),
        ("yuv420p", 6, LIMITED, BT601),
        ("yuv420p", 1, LIMITED, BT709),
        ("yuv420p", 1, FULL, BT709),
        ("yuv420p", 9, LIMITED, BT2020),
        ("yuvj420p", 2, FULL, BT601),
        ("yuvj422p", 5, FULL, BT601),
        ("yuv444p", 2, FULL, BT601),
        ("yuv420p", picture.COLORSPACE_RESERVED, 0, BT601),
    ],
)
def test_matrix_and_range_are_those_of_the_stream(pix_fmt, colorspace, color_range, matrix):
    frame = plain_picture(pix_fmt, ycbcr(RGB, matrix, color_range))
    frame.colorspace, frame.color_range = colorspace, color_range
    np.testing.assert_allclose(colour_of(frame), RGB, atol=2)
    np.testing.assert_allclose(colour_of(frame, 64, 48), RGB, atol=2)  # also without resizing


def test_ten_bits_gray_planar_rgb_and_alpha():
    ten_bits = plain_picture("yuv420p10le", ycbcr(RGB, BT601, LIMITED, bits=10), dtype=np.uint16)
    np.testing.assert_allclose(colour_of(ten_bits), RGB, atol=2)
    np.testing.assert_allclose(colour_of(plain_picture("gray", [100])), (100, 100, 100), atol=1)
    np.testing.assert_allclose(
        colour_of(plain_picture("gray16le", [100 * 257], dtype=np.uint16)), 100, atol=1
    )
    np.testing.assert_allclose(colour_of(plain_picture("gbrp", (60, 30, 200))), RGB, atol=1)
    with_alpha = plain_picture("yuva420p", (*ycbcr(RGB, BT601, LIMITED), 128))
    np.testing.assert_allclose(colour_of(with_alpha), RGB, atol=2)


def test_palette():
    frame = av.VideoFrame(64, 48, "pal8")
    frame.planes[0].update(np.full(frame.planes[0].buffer_size, 3, np.uint8).tobytes())
    palette = np.zeros((256, 4), np.uint8)
    palette[3] = (30, 60, 200, 255)  # BGRA
    frame.planes[1].update(palette.tobytes())
    np.testing.assert_allclose(colour_of(frame), RGB, atol=1)


def test_a_colour_space_that_cannot_be_converted_is_refused():
    frame = plain_picture("yuv420p", (100, 100, 100))
    frame.colorspace = 13  # chromaticity-derived, constant luminance
    with pytest.raises(ClipRejected, match=r"unsupported: .*yuv420p.*13"):
        colour_of(frame)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5), (17, 33), (127, 61)])
def test_odd_sizes(width, height):
    frame = plain_picture("yuv420p", ycbcr(RGB, BT601, LIMITED), width=width, height=height)
    np.testing.assert_allclose(colour_of(frame, 41, 31), RGB, atol=2)


class Turned:
    """Stands for a picture with a display matrix, which PyAV cannot write."""

    def __init__(self, a, b, c, d, *, width=40, height=30):
        matrix = struct.pack("=9i", *(value << 16 for value in (a, b, 0, c, d, 0, 0, 0, 1 << 14)))
        self.side_data = {"DISPLAYMATRIX": matrix}
        self.width, self.height = width, height


@pytest.mark.parametrize(
    "matrix", [(1, 0, 0, 1), (-1, 0, 0, -1), (0, -1, 1, 0), (0, 1, -1, 0), (-1, 0, 0, 1)]
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation_moves_pixels_as_the_matrix_says(matrix, mirrored):
    a, b, c, d = matrix
    if mirrored:
        a, b = -a, -b
    coded_HW = np.arange(12).reshape(3, 4)
    turn = orientation(Turned(a, b, c, d))
    upright_HW = coded_HW.T if turn.transpose else coded_HW
    upright_HW = upright_HW[:: -1 if turn.flip_y else 1, :: -1 if turn.flip_x else 1]
    # x' = a x + c y and y' = b x + d y, moved so that both begin at 0
    y, x = np.indices(coded_HW.shape)
    x_moved, y_moved = a * x + c * y, b * x + d * y
    expected = np.zeros_like(upright_HW)
    expected[y_moved - y_moved.min(), x_moved - x_moved.min()] = coded_HW
    np.testing.assert_array_equal(upright_HW, expected)


def test_no_or_an_empty_matrix_is_upright():
    assert orientation(plain_picture("gray", [1])) == (False, False, False)
    assert orientation(Turned(0, 0, 0, 0)) == (False, False, False)


def test_upright_size():
    plain = plain_picture("gray", [1], width=340, height=256)
    one = Fraction(1)
    assert upright_size(plain, Orientation(), pixel_aspect=one, shorter_side_px=256) == (340, 256)
    assert upright_size(plain, Orientation(), pixel_aspect=Fraction(2), shorter_side_px=256) == (680, 256)
    assert upright_size(plain, Orientation(), pixel_aspect=Fraction(1, 2), shorter_side_px=100) == (100, 151)
    assert upright_size(plain, Orientation(transpose=True), pixel_aspect=one, shorter_side_px=64) == (64, 85)
    with pytest.raises(ClipRejected, match="too_large"):
        upright_size(plain, Orientation(), pixel_aspect=Fraction(500), shorter_side_px=256)


def test_jpeg_is_close_and_the_same_each_time():
    y, x = np.indices((61, 83))
    rgb_HWC = np.stack([x * 3, y * 4, 255 - x], axis=2).astype(np.uint8)
    image = encode_rgb(rgb_HWC, jpeg_quality=95)
    assert image == encode_rgb(rgb_HWC, jpeg_quality=95)
    assert len(encode_rgb(rgb_HWC, jpeg_quality=50)) < len(image)
    decoded = simplejpeg.decode_jpeg(image)
    assert np.abs(decoded.astype(int) - rgb_HWC).mean() < 2  # halved chroma on a gradient
