"""The sheet of what each code paints."""

import numpy as np
import torch
from PIL import Image

from dalle_mini_impl.evaluation.report import codebook
from dalle_mini_impl.evaluation.report.codebook import most_used, painted, save_codebook
from dalle_mini_impl.evaluation.report.run_report import write_report
from dalle_mini_impl.pipeline import TextToImage
from tests.copied import train_on
from tests.tiny import tiny_run

IMAGES = [[0] * 10 + [5] * 4 + [9] * 2, [0] * 12 + [9] * 3 + [7]]


def test_codes_are_sorted_by_use():
    codes, uses = most_used(np.array([1, 5, 8]), np.array([3, 30, 7]), (16,), 0)
    assert codes.tolist() == [5, 8, 1]
    assert uses.tolist() == [30, 7, 3]


def test_values_of_a_factor_come_with_their_commonest_partner():
    # Factors of 4 and 3: code = first + 4 * second.
    codes, counts = np.array([1, 1 + 4, 2, 2 + 8, 3 + 4]), np.array([5, 9, 4, 1, 2])
    first, uses = most_used(codes, counts, (4, 3), 0)
    assert first.tolist() == [1 + 4, 2, 3 + 4]
    assert uses.tolist() == [14, 5, 2]
    second, uses = most_used(codes, counts, (4, 3), 1)
    assert second.tolist() == [1 + 4, 1, 2 + 8]
    assert uses.tolist() == [11, 9, 1]


def test_a_report_shows_what_each_code_paints(tmp_path, monkeypatch):
    run = tiny_run(tmp_path / "run")
    assert "Codebook" not in write_report(run).read_text(encoding="utf-8")
    save_codebook(run, TextToImage.from_pretrained(run, "cpu"))
    assert not (run.path / "previews" / "codebook").exists()
    train_on(run, IMAGES)
    model = TextToImage.from_pretrained(run, "cpu")
    save_codebook(run, model)
    text = write_report(run).read_text(encoding="utf-8")
    assert "4 of 16 codes are used; the first 4, from 68.75% to 3.12% of all uses" in text
    tiles = painted(model.image_tokenizer, np.array([0, 9, 5, 7]), neutral=0)
    sheet = np.asarray(Image.open(run.path / "previews" / "codebook" / "factor-1.png"))
    side = tiles.shape[-1]
    assert not torch.equal(tiles[0], tiles[1])
    for place, tile in enumerate(tiles):
        scale = codebook.TILE // side
        left = 4 + place % codebook.COLUMNS * (side * scale + 4)
        shown = sheet[4 : 4 + side * scale : scale, left : left + side * scale : scale]
        assert np.abs(shown / 255 - tile.permute(1, 2, 0).numpy()).max() < 0.01
    monkeypatch.setattr(codebook, "SHOWN", 2)
    save_codebook(run, model)
    assert "the first 2, from 68.75% to 15.62%" in write_report(run).read_text(encoding="utf-8")
