"""The report: everything of a run in one file that asks the network for nothing."""

import re

import pytest
from PIL import Image

from dalle_mini_impl.evaluation.report.gallery import sample_gallery
from dalle_mini_impl.evaluation.report.run_report import minutes, write_report
from dalle_mini_impl.pipeline import TextToImage
from tests.tiny import tiny_run


@pytest.fixture
def run(tmp_path):
    return tiny_run(tmp_path / "run")


def log(run, stage, **names):
    for step in (20, 40, 60):
        values = {name: value / step for name, value in names.items()}
        run.log(stage, step, **values, learning_rate=1.0, examples_per_second=16.0)


def test_a_report_holds_figures_curves_previews_and_galleries(run):
    log(run, "image_tokenizer", loss=3.0, reconstruction=2.0)
    run.log("image_tokenizer", 60, hard_psnr=21.5, code_usage=0.75)
    log(run, "transformer", loss=300.0, image=200.0)
    run.log("codes", 0, code_usage=0.5, perplexity=7.25)
    for name in ("image_tokenizer-00020", "image_tokenizer-00100", "transformer-00060"):
        Image.new("RGB", (8, 8), "red").save(run.previews / f"{name}.png")
    evil = "<script>alert('a & b')</script>"
    sample_gallery(run, TextToImage.from_pretrained(run, "cpu"), ["a red heart", evil], 2, 3)

    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    assert path == run.path / "report.html"
    assert text.count("data:image/png;base64,") == 3 + 4
    assert text.count("<svg") == 2 * (2 + 2)  # losses and folded rates of two stages
    assert "hard_psnr 21.50 dB" in text
    assert "code_usage 75.0 %" in text
    assert "code_usage 50.0 %  perplexity 7.25" in text
    assert "codes:" in text
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#x27;a &amp; b&#x27;)&lt;/script&gt;" in text
    # The last preview by number is shown before the folded ones.
    assert text.index("image_tokenizer-00100") < text.index("image_tokenizer-00020")
    assert text.index("a red heart") < text.index("Configuration")


def test_a_report_opens_offline(run):
    log(run, "clip", loss=1.0)
    text = write_report(run).read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)\w""", text)
    assert "http" not in text


def test_missing_parts_are_left_out(tmp_path):
    run = tiny_run(tmp_path / "run", weights=())
    text = write_report(run).read_text(encoding="utf-8")
    for section in ("Figures", "Curves", "Reconstructions", "galleries"):
        assert section not in text
    assert "Configuration" in text
    assert not (run.path / "previews").exists()


def test_minutes_follow_from_rates():
    rates = [{"step": s, "examples_per_second": 10.0} for s in (30, 60)]
    assert minutes(rates, batch_size=20) == pytest.approx(60 * 20 / 10 / 60)
    assert minutes([{"step": 5}], batch_size=20) is None
