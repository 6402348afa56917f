"""How images show themselves in a notebook: as PNG, and as HTML with what is known of them."""

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SHOWN_WIDTH = 192
"""Pixels that a small image is magnified to on the page."""


def png_bytes(image: Image.Image, chunks: PngInfo | None = None) -> bytes:
    """The image as the bytes of a PNG file, with these text chunks."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def figure_html(image: Image.Image, text: str) -> str:
    """An image with a line of text under it."""
    width = max(SHOWN_WIDTH, image.width)
    source = base64.b64encode(png_bytes(image)).decode()
    return (
        f'<figure style="display: inline-block; margin: 4px; width: {width}px">'
        f'<img src="data:image/png;base64,{source}" alt="{html.escape(text)}" '
        f'style="width: {width}px; image-rendering: pixelated">'
        f'<figcaption style="font-size: small">{html.escape(text)}</figcaption></figure>'
    )


def gallery_html(title: str, tiles: Iterable[tuple[Image.Image, str]]) -> str:
    """Images side by side, each with a line of text, under a title."""
    figures = "".join(figure_html(image, text) for image, text in tiles)
    return f"<div><p>{html.escape(title)}</p>{figures}</div>"
