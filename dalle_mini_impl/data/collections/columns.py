"""Chooses the columns that hold images, captions and labels, and reads captions from rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dalle_mini_impl.captions import clean_caption
from dalle_mini_impl.data.collections.detect import DataError

IMAGE_NAMES = [
    "image", "img", "picture", "photo", "png", "jpg", "jpeg", "webp", "gif", "bmp", "tif",
    "tiff", "file_name", "filename", "file", "path", "image_path", "image_file", "img_path",
    "filepath", "file_path",
]  # fmt: skip
CAPTION_NAMES = [
    "caption", "captions", "text", "texts", "txt", "title", "prompt", "sentence", "sentences",
    "description",
]  # fmt: skip
LABEL_NAMES = ["label", "labels", "class", "class_name", "category", "cls", "fine_label"]


@dataclass(frozen=True)
class Columns:
    """The columns chosen from a table; None where it has no captions or labels."""

    image: str
    caption: str | None
    label: str | None
    label_names: tuple[str, ...] = ()
    """Names of an integer label, in order; empty where the column holds words."""
    lines: bool = False
    """Whether each line of a text is a caption (text files) or the whole text is one caption."""

    def names_to_read(self) -> list[str]:
        """The top-level columns that must be read."""
        wanted = [self.image, self.caption, self.label]
        return list(dict.fromkeys(name.split(".")[0] for name in wanted if name))

    def captions(self, row: Mapping[str, Any], templates: Sequence[str]) -> tuple[str, ...]:
        """The row's captions, cleaned and without duplicates; labels in templates."""
        texts: list[str] = []
        if self.caption is not None:
            for text in _texts(_value(row, self.caption)):
                texts += text.splitlines() if self.lines else [text]
        if self.label is not None:
            for label in self._labels(_value(row, self.label)):
                texts += [template.replace("{label}", label) for template in templates]
        return tuple(dict.fromkeys(text for text in map(clean_caption, texts) if text))

    def _labels(self, value: Any) -> Iterator[str]:
        for label in value if isinstance(value, list) else [value]:
            if self.label_names and isinstance(label, int):
                # A class label of -1 means that the class is unknown.
                label = self.label_names[label] if 0 <= label < len(self.label_names) else None
            if label is not None and str(label).strip():
                yield str(label).strip().replace("_", " ")


def _value(row: Any, name: str) -> Any:
    """row["a"]["b"] for "a.b", through lists of records too."""
    if isinstance(row, Mapping) and name in row:
        return row[name]
    first, _, rest = name.partition(".")
    value = row.get(first) if isinstance(row, Mapping) else None
    if isinstance(value, list):
        return [_value(item, rest) for item in value]
    return _value(value, rest) if rest and value is not None else None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value: the text itself, the items of a list, the fields of a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bytes) and value == value:
        yield str(value)  # a caption that the CSV reader parsed as a number


def choose_columns(
    features: Mapping[str, Any],
    where: str,
    image: str | None = None,
    caption: str | None = None,
    label: str | None = None,
    lines: bool = False,
) -> Columns:
    """Detects the columns that are not named; "" as caption means images without captions.

    features: column name -> `datasets` feature. where: names the table in error messages.
    Raises DataError, listing all columns, where one is missing or ambiguous.
    """
    listed = ", ".join(f"{name} ({_kind(kind)})" for name, kind in features.items())
    table = f"{where} has the columns {listed}"
    image = _named(features, image, "image", table) or _image(features, table)
    others = {name: kind for name, kind in features.items() if name != image}
    asked_label = _named(others, label, "label", table) if label != "" else None
    asked_caption = _named(others, caption, "caption", table) if caption != "" else None
    if caption is None and asked_label is None:
        asked_caption = _one(_candidates(others, CAPTION_NAMES), "caption", table)
    if caption is None and label is None and asked_caption is None:
        asked_label = _one(_candidates(others, LABEL_NAMES), "label", table)
        if asked_label and _kind(others[asked_label]) not in ("class label", "string", "list"):
            raise DataError(
                f"{table}: `{asked_label}` holds numbers without names. Give a column of captions "
                f"(data.caption_column), or data.label_column {asked_label} to use the numbers"
            )
        if asked_label is None:
            raise DataError(
                f"{table}: none is a known name for captions. Set data.caption_column (or "
                'data.label_column for class names; data.caption_column "" for no captions)'
            )
    names = _label_names(features.get(asked_label)) if asked_label else ()
    return Columns(image, asked_caption, asked_label, names, lines)


def _named(features: Mapping[str, Any], name: str | None, role: str, table: str) -> str | None:
    """The configured name if there is one; dotted names reach into records."""
    if not name:
        return None
    if name not in features and name.split(".")[0] not in features:
        raise DataError(f"{table}: data.{role}_column {name!r} is not one of them")
    return name


def _image(features: Mapping[str, Any], table: str) -> str:
    typed = [name for name, kind in features.items() if _kind(kind) == "image"]
    by_name = [name for name in _candidates(features, IMAGE_NAMES) if "." not in name]
    found = _one(typed or by_name, "image", table)
    if found is None:
        raise DataError(
            f"{table}: none is a known name for images or their paths. Set data.image_column "
            "(--image-column of `dalle index`). If these are not column names, the table lacks "
            "a header line or uses another separator"
        )
    return found


def _candidates(features: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Columns with a known name, else fields of that name in a record (`json.caption`)."""
    lowered = {name.lower(): name for name in features}
    found = [lowered[name] for name in names if name in lowered]
    if found:
        return found
    return [
        f"{column}.{field}"
        for column, kind in features.items()
        if isinstance(kind, Mapping) and column in ("json", "metadata", "meta")
        for field in kind
        if field.lower() in names
    ]


def _one(found: list[str], role: str, table: str) -> str | None:
    if len(found) > 1:
        raise DataError(
            f"{table}: {' and '.join(found)} could each be the {role}; set data.{role}_column"
        )
    return found[0] if found else None


def _kind(feature: Any) -> str:
    """The kind of a feature, in one word."""
    name = type(feature).__name__
    known = {"Image": "image", "ClassLabel": "class label", "List": "list", "Sequence": "list"}
    if name in known or isinstance(feature, Mapping | list):
        return known.get(name, "record" if isinstance(feature, Mapping) else "list")
    dtype = str(getattr(feature, "dtype", name))
    return "string" if dtype == "large_string" else dtype


def _label_names(feature: Any) -> tuple[str, ...]:
    feature = getattr(feature, "feature", feature)  # a list of class labels
    return tuple(getattr(feature, "names", None) or ())
