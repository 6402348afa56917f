"""Changes to an image that the detectors must see through."""

import io

import numpy as np
from PIL import Image, ImageFilter


def noisy(image: Image.Image) -> Image.Image:
    values = np.asarray(image) + np.random.default_rng(0).normal(0, 12, (64, 64, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1))


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file).convert("RGB")


def tinted(image: Image.Image) -> Image.Image:
    values = np.asarray(image) * np.array([0.93, 0.95, 0.9]) + 8
    return Image.fromarray(values.astype(np.uint8))


DEGRADATIONS = (blurred, noisy, compressed, tinted)
