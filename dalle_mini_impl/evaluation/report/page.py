"""The elements of a self-contained HTML page: tables, inline images, curves as inline SVG.

All text is escaped here, so captions and names may contain anything.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #666; --ink: #2563eb; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #a8a8a8; --ink: #7aa5ff; }
  .sheet img { filter: brightness(.85); }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.table, .sheet, pre { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; } th { font-weight: 600; }
td.text { white-space: normal; min-width: 16rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
figure { margin: 0; max-width: 100%; } figure.tile { width: min-content; min-width: 7rem; }
figcaption, .note { font-size: .8rem; color: var(--soft); }
img { image-rendering: pixelated; max-width: 100%; display: block; outline: 1px solid var(--line); }
.sheet img { max-width: none; }
.nearest { display: flex; gap: .4rem; align-items: center; font-size: .7rem; line-height: 1.2;
  color: var(--soft); margin-top: .2rem; }
.copy { color: #dc2626; } .copy img { outline: 2px solid #dc2626; }
svg { display: block; max-width: 100%; }
svg path { fill: none; stroke: var(--ink); stroke-width: 1.5; }
svg path.line1 { stroke: #dc2626; } svg path.line2 { stroke: #d97706; }
svg path.line3 { stroke: #888; }
.line0 { color: var(--ink); } .line1 { color: #dc2626; } .line2 { color: #d97706; }
svg line { stroke: var(--line); } svg text { font: 10px system-ui, sans-serif; fill: var(--soft); }
pre { padding: .8rem; border: 1px solid var(--line); border-radius: .4rem; overflow-wrap: normal; }
summary { cursor: pointer; margin: .5rem 0; }
.warning { padding: .4rem .8rem; border-left: .3rem solid #d97706; }
"""

LONG = 40
"""Characters of a cell above which it wraps."""


@dataclass(frozen=True)
class Table:
    """Rows of text under column names, for a page or a terminal."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """How to read the numbers."""

    def to_html(self) -> str:
        rows = [self.columns, *self.rows]
        # Columns of long texts wrap, so that a table of them is not many screens wide.
        wraps = [max(map(len, column)) > LONG for column in zip(*rows, strict=True)]
        head, *lines = [
            "".join(_cell(text, tag, wide) for text, wide in zip(row, wraps, strict=True))
            for row, tag in zip(rows, ["th"] + ["td"] * len(self.rows), strict=True)
        ]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        title = subheading(self.title) if self.title else ""
        table = f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'
        return title + table + note(self.note)

    def __str__(self) -> str:
        cells = [list(self.columns), *map(list, self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*filter(None, [self.title]), *lines, *filter(None, [self.note])])


def _cell(text: str, tag: str, wraps: bool) -> str:
    kind = ' class="text"' if wraps else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def page(title: str, body: Iterable[str]) -> str:
    """A complete HTML document; it loads nothing from the network."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def heading(text: str) -> str:
    """The title of a section."""
    return f"<h2>{escape(text)}</h2>"


def subheading(text: str) -> str:
    """The title of a part of a section."""
    return f"<h3>{escape(text)}</h3>"


def note(text: str) -> str:
    """A remark in small print; nothing without text."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def folded(summary: str, body: str) -> str:
    """Content that is opened by a click."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text with its line breaks, such as a configuration."""
    return f"<pre>{escape(text)}</pre>"


def image_tile(
    image: bytes | Image.Image, text: str = "", side: int | None = None, below: str = ""
) -> str:
    """An inline image (PNG bytes or Pillow); `side` scales it to a tile of that many pixels.

    below: HTML under the text.
    """
    caption = "".join(f"<div>{escape(line)}</div>" for line in text.splitlines())
    shape = ' class="tile"' if side else ""
    return (
        f"<figure{shape}>{inline_image(image, text, side)}"
        f"<figcaption>{caption}</figcaption>{below}</figure>"
    )


def inline_image(image: bytes | Image.Image, text: str = "", side: int | None = None) -> str:
    """An image alone; text: for those who cannot see it."""
    if isinstance(image, Image.Image):
        stream = io.BytesIO()
        image.save(stream, format="PNG")
        image = stream.getvalue()
    data = base64.b64encode(image).decode()
    size = f' width="{side}" height="{side}"' if side else ""
    return f'<img{size} alt="{escape(text, quote=True)}" src="data:image/png;base64,{data}">'


def sheet(image: bytes, text: str) -> str:
    """An inline image of many tiles at its own size; on a narrow screen it scrolls in its box."""
    return f'<div class="sheet">{image_tile(image, text)}</div>'


def row(parts: Iterable[str]) -> str:
    """Figures side by side."""
    return f'<div class="row">{"".join(parts)}</div>'


def number(value: float | int | None) -> str:
    """Four significant digits, thousands with commas; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def share(value: float | int, interval: tuple[float, float] | None = None) -> str:
    """A share in percent, with its interval if given."""
    text = f"{100 * value:.1f} %"
    return text if interval is None else f"{text} ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"


@dataclass(frozen=True)
class ReportPart:
    """One part of an evaluation: its numbers, the tables that show them, images as HTML."""

    name: str
    figures: Mapping[str, Any]
    """JSON values."""
    tables: Sequence[Table] = ()
    images: str = ""

    warnings: Sequence[str] = ()
    """Why its numbers say less than they seem to."""

    def to_html(self) -> str:
        warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in self.warnings)
        tables = "".join(table.to_html() for table in self.tables)
        return heading(self.name) + warnings + tables + self.images

    def __str__(self) -> str:
        warnings = [f"WARNING: {text}" for text in self.warnings]
        return "\n".join([self.name, *warnings, *map(str, self.tables)])
