"""Digits drawn on the spot: the two data sets of the course that need no download.

A picture is one bitmap of a digit, looked up at warped places. For an output pixel at p in [-1, 1]^2

    value(p) = glyph( M^-1 (p - t) + d(p) )

with t a shift, M a rotation, shear and scale, and d a smooth random field (the elastic warp). `street_digits`
puts neighbouring digits at the sides and paints everything over a coloured texture, in low contrast and with
noise: what makes photographs of house numbers hard. `ink_digits` is white on black and harder warped, as
handwriting is.

Images are drawn in parts of `PART` images, every part from its own seed, so that the first 4,000 images are
the same whether 4,000 or 20,000 are asked for. The same seed gives the same images on one machine; on another
processor a pixel may differ by one level in 256, because vector units round differently.

Source: Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011 (SVHN, the
    look); Simard, Steinkraus, Platt, Best Practices for Convolutional Neural Networks, 2003, section 2
    (elastic warp).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

PART = 1000  # images drawn from one seed
GLYPH = 48  # side of a glyph bitmap, in pixels
GLYPH_HEIGHT = 32  # height of its digit "0"
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic", "DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralItalic",
    "STIXGeneralBol", "STIXGeneralBolIta", "cmr10", "cmss10", "cmtt10", "cmb10",
)  # fmt: skip  -- text fonts that come with matplotlib, by name: display and symbol fonts have no digits


def stream(*key: int) -> torch.Generator:
    """A random generator of its own for every key of non-negative integers."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


@lru_cache(maxsize=1)
def glyphs() -> Tensor:
    """All bitmaps, centred and equally high: float32 in [0, 1], (fonts, 10, GLYPH, GLYPH)."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    bitmaps = [[_glyph(folder / f"{name}.ttf", str(digit)) for digit in range(10)] for name in FONTS]
    return torch.from_numpy(np.array(bitmaps, dtype=np.float32) / 255)


def _glyph(path: Path, digit: str) -> np.ndarray:
    def font_at(size: float) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)

    _, top, _, bottom = font_at(100).getbbox("0")
    font = font_at(100 * GLYPH_HEIGHT / (bottom - top))
    left, top, right, bottom = font.getbbox(digit)
    canvas = Image.new("L", (GLYPH, GLYPH))
    corner = ((GLYPH - left - right) / 2, (GLYPH - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, digit, fill=255, font=font)
    return np.array(canvas)


class Dice:
    """Random numbers for `n` images at a time, all from one generator."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in [low, high), (n, *shape)."""
        return torch.rand(self.n, *shape, generator=self.generator) * (high - low) + low

    def integers(self, high: int) -> Tensor:
        """Integers in [0, high), (n,)."""
        return torch.randint(high, (self.n,), generator=self.generator)

    def smooth(self, cells: int, channels: int, size: int) -> Tensor:
        """Standard normal values on a grid of `cells` x `cells`, interpolated: (n, channels, size, size)."""
        coarse = torch.randn(self.n, channels, cells, cells, generator=self.generator)
        return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def affine(angle: Tensor, shear: Tensor, height: Tensor, stretch: Tensor) -> Tensor:
    """M^-1 of the module's equation, from output to glyph coordinates.

    Args:
        angle: rotation in radians, (n,).
        shear: slant to the side per unit of height, (n,).
        height: of the digit, as a fraction of the image's height, (n,).
        stretch: width of the digit relative to the font's, (n,).
    Returns:
        (n, 2, 2).
    """
    scale = height * GLYPH / GLYPH_HEIGHT
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    shape = torch.stack([stretch, shear, zero, one], -1).view(-1, 2, 2)
    return torch.linalg.inv(scale.view(-1, 1, 1) * rotation @ shape)


def place(bitmaps: Tensor, inverse: Tensor, shift: Tensor, warp: Tensor) -> Tensor:
    """Look every bitmap up at M^-1 (p - t) + d(p), bilinearly, zero outside.

    Args:
        bitmaps: (n, GLYPH, GLYPH).
        inverse: M^-1, (n, 2, 2).
        shift: t, in units where the image is 2 wide, (n, 2), x first.
        warp: d, (n, 2, S, S).
    Returns:
        (n, 1, S, S), in [0, 1].
    """
    size = warp.shape[-1]
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(1, size * size, 2)
    source = (points - shift[:, None]) @ inverse.mT + warp.flatten(2).mT
    return F.grid_sample(bitmaps[:, None], source.view(-1, size, size, 2), align_corners=False)


def draw_ink(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """White digits on black: uint8 (n, 1, 28, 28) and their labels int64 (n,)."""
    dice = Dice(n, generator)
    labels, fonts = dice.integers(10), dice.integers(len(FONTS))
    inverse = affine(
        dice.uniform(-0.25, 0.25), dice.uniform(-0.35, 0.35), dice.uniform(0.6, 0.8), dice.uniform(0.75, 1.25)
    )
    warp = 0.08 * dice.smooth(4, 2, 28)
    ink = place(glyphs()[fonts, labels], inverse, dice.uniform(-0.1, 0.1, 2), warp)
    return to_bytes(ink * dice.uniform(0.7, 1.2, 1, 1, 1)), labels


def draw_street(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """House numbers: uint8 (n, 3, 32, 32) and the labels int64 (n,) of the digits in the middle."""
    size, dice = 32, Dice(n, generator)
    labels, fonts = dice.integers(10), dice.integers(len(FONTS))
    height, angle = dice.uniform(0.55, 0.85), dice.uniform(-0.25, 0.25)
    inverse = affine(angle, dice.uniform(-0.3, 0.3), height, dice.uniform(0.75, 1.2))
    shift, warp = dice.uniform(-0.12, 0.12, 2), 0.07 * dice.smooth(4, 2, size)
    shape = place(glyphs()[fonts, labels], inverse, shift, warp)
    along = torch.stack([angle.cos(), angle.sin()], -1) * height[:, None]
    for side in (-1, 1):
        neighbour = glyphs()[fonts, dice.integers(10)]
        gap = side * dice.uniform(1.4, 1.9, 1) * along
        visible = (dice.uniform(0, 1, 1, 1, 1) < 0.6).float()
        shape = torch.maximum(shape, visible * place(neighbour, inverse, shift + gap, warp))
    return paint(shape, dice), labels


def paint(shape: Tensor, dice: Dice) -> Tensor:
    """Paint shapes (n, 1, S, S) over a texture, blur, and add noise: uint8 (n, 3, S, S)."""
    size = shape.shape[-1]
    base = dice.uniform(0.2, 0.8, 3, 1, 1)
    texture = dice.uniform(0, 0.08, 1, 1, 1) * dice.smooth(4, 3, size)
    texture += dice.uniform(0, 0.08, 1, 1, 1) * dice.smooth(9, 1, size)
    texture += dice.uniform(-0.08, 0.08, 3, 1, 1) * stripes(size, dice)
    contrast = F.normalize(dice.uniform(-1, 1, 3, 1, 1), dim=1) * dice.uniform(0.4, 1.0, 1, 1, 1)
    image = base + texture + shape * contrast
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    image = torch.lerp(image, blurred, dice.uniform(0, 0.8, 1, 1, 1))
    noise = torch.randn(image.shape, generator=dice.generator)
    return to_bytes(image + dice.uniform(0.01, 0.06, 1, 1, 1) * noise)


def stripes(size: int, dice: Dice) -> Tensor:
    """Waves of random direction, wavelength and phase, in [-1, 1], (n, 1, size, size)."""
    line = torch.linspace(-1, 1, size)
    angle, waves, phase = (dice.uniform(0, high, 1, 1, 1) for high in (math.pi, 6.0, 2 * math.pi))
    across = line * angle.cos() + line[:, None] * angle.sin()
    return torch.sin(math.pi * waves * across + phase)


def to_bytes(image: Tensor) -> Tensor:
    """Values in [0, 1] as uint8; what lies outside is clipped."""
    return image.clamp(0, 1).mul(255).round().to(torch.uint8)


DRAW: dict[str, Callable[[int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "street_digits": draw_street,
    "ink_digits": draw_ink,
}
