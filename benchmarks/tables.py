"""A measurement's JSON as tables: plain for the terminal, Markdown for the documentation."""

from typing import Any

HEADERS = ["case", "precision", "", "parameters", "time", "rate", "of the roofline"]


def text(record: dict[str, Any]) -> str:
    """All tables for the terminal."""
    blocks = []
    for table in record["tables"]:
        header, rows = _cells(table)
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [header, *rows]
        ]
        blocks.append("\n".join([table["title"], "", *lines]))
    return "\n\n".join([*blocks, *_remarks(record)])


def markdown(record: dict[str, Any]) -> str:
    """All tables and notes, the conditions first."""
    made = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    blocks = [
        f"`{' '.join(made['command'])}` on {made['cpu']}, {made['threads']} threads; {versions}; "
        f"commit {(made['commit'] or 'unknown')[:12]}."
    ]
    for table in record["tables"]:
        header, rows = _cells(table)
        lines = [_line(header), _line(["---"] * len(header)), *map(_line, rows)]
        notes = [f"- {note}" for note in table["notes"]]
        blocks.append(f"### {table['title']}\n\n" + "\n".join(lines))
        if notes:
            blocks.append("\n".join(notes))
    if record["floors"]:
        lines = [_line(["rate", "measured"]), _line(["---", "---"])]
        lines += [_line([name, f"{value:.1f}"]) for name, value in record["floors"].items()]
        blocks.append("### What the hardware allows\n\n" + "\n".join(lines))
    return "\n\n".join([*blocks, *_remarks(record)]) + "\n"


def _cells(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    peers = list(dict.fromkeys(peer for row in table["rows"] for peer in row["ratios"]))
    header = [*HEADERS, *(f"× {peer}" for peer in peers)]
    rows = [
        [
            row["case"],
            row["precision"],
            row["contender"],
            f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "",
            duration(row["seconds"]) if row["seconds"] is not None else row["note"],
            _rate(row),
            f"{row['fraction']:.0%}" if row["fraction"] is not None else "",
            *(f"{row['ratios'][peer]:.2f}" if peer in row["ratios"] else "" for peer in peers),
        ]
        for row in table["rows"]
    ]
    used = [i for i, name in enumerate(header) if any(row[i] for row in rows) or not name]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _rate(row: dict[str, Any]) -> str:
    if row["seconds"] is None or not row["unit"]:
        return ""
    if row["unit"].endswith("/s"):
        return f"{row['amount'] / row['seconds']:,.4g} {row['unit']}"
    if row["unit"] == "of the time":
        return f"{row['amount']:.2%} {row['unit']}"
    return f"{row['amount']:.2f} {row['unit']}"


def duration(seconds: float) -> str:
    """Three figures in the unit that suits them."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _remarks(record: dict[str, Any]) -> list[str]:
    return [
        f"{missing['peer']} is not installed and was left out: `{missing['install']}`"
        for missing in record["absent"]
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
