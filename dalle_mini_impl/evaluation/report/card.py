"""The card of an exported run, in Markdown: what it was trained on, its figures, how to use it."""

import io

from dalle_mini_impl.data.image_files import open_image_file
from dalle_mini_impl.evaluation.report.gallery import read_gallery
from dalle_mini_impl.evaluation.report.page import Table
from dalle_mini_impl.evaluation.report.run_report import figures
from dalle_mini_impl.images import contact_sheet
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.sampling.record import copy_mark


def card(run: RunFolder, name: str, dtype: str) -> str:
    """The text of README.md; figures that the run does not record are left out."""
    data = run.experiment.data
    lines = [
        f"# {name}",
        "",
        f"A text-to-image model for images of {data.image_size} × {data.image_size} pixels, "
        f"trained on `{data.path}`. Weights are stored as {dtype}; `config.yaml` has all settings.",
        "",
        "```",
        f'dalle sample "CAPTION" --run {name}',
        "```",
    ]
    table = figures(run)
    if table.rows:
        lines += ["", "## Training", "", markdown(table)]
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> str:
    """The table in Markdown, without its title."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def samples_sheet(run: RunFolder) -> bytes | None:
    """The best image of each caption in the run's gallery as one PNG; None without a gallery."""
    best = [(ranked.caption, ranked.images[0]) for ranked in read_gallery(run) if ranked.images]
    if not best:
        return None
    marks = [copy_mark(image.nearest) for _, image in best]
    images = []
    for _, image in best:
        images.append(open_image_file(image.file))
    content = io.BytesIO()
    captions = [caption for caption, _ in best]
    contact_sheet(images, captions, columns=4, scale=2, marks=marks).save(content, "PNG")
    return content.getvalue()
