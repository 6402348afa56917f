"""The report: everything of a run in one file that asks the network for nothing."""

import base64
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.evaluation.report.gallery import sample_gallery
from dalle_mini_impl.evaluation.report.run_report import caption_losses, minutes, write_report
from dalle_mini_impl.evaluation.report.samples import last_samples
from dalle_mini_impl.pipeline import TextToImage
from tests.copied import train_on
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
    order = ["a red heart", "image_tokenizer-00100", "Figures", "Curves", "Configuration"]
    places = [text.index(name) for name in order]
    assert places == sorted(places)


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


def write_samples(folder, *records):
    folder.mkdir(parents=True)
    for record in records:
        Image.new("RGB", (8, 8), "red").save(folder / record["file"])
    text = json.dumps({"run": "run", "samples": records})
    (folder / "samples.json").write_text(text, encoding="utf-8")


def test_a_report_shows_the_last_samples_in_the_run(run):
    assert last_samples(run) == []
    old = {"caption": "an old one", "seed": 0, "clip_score": 0.5, "file": "00-00.png"}
    new = {"caption": "a <new> one", "seed": 7, "clip_score": 0.25, "file": "00-00.png"}
    write_samples(run.path / "first", old)
    write_samples(run.path / "demo" / "000", new | {"log_likelihood_ratio": 3.0})
    os.utime(run.path / "first" / "samples.json", (1, 1))
    text = write_report(run).read_text(encoding="utf-8")
    assert "an old one" not in text
    for shown in ("a &lt;new&gt; one", "From demo/000/", "clip 0.25", "llr 3.00", "seed 7"):
        assert shown in text
    assert text.index("Samples") < text.index("Configuration")


def test_a_report_does_without_samples_that_it_cannot_read(run):
    (run.path / "demo").mkdir()
    for content in ("{", "[]", '{"samples": [{"file": "x.png"}]}', '{"samples": []}'):
        (run.path / "demo" / "samples.json").write_text(content, encoding="utf-8")
        assert last_samples(run) == []
    missing = {"samples": [{"file": "../../x.png", "caption": "a"}]}
    (run.path / "demo" / "samples.json").write_text(json.dumps(missing), encoding="utf-8")
    assert last_samples(run) == []


def test_nearest_training_images_are_beside_samples(run):
    prepare(run.experiment.data, "train", run.cache / "images", lambda text: None)
    images = {"image": 7, "likeness": 0.4, "near_copy": False}
    far = {"caption": "a far one", "file": "00-00.png", "nearest": images}
    near = {"image": 3, "likeness": 0.93, "near_copy": True}
    copy = {"caption": "a copy", "file": "00-01.png", "nearest": near}
    write_samples(run.path / "demo", far, copy, {"caption": "unknown", "file": "00-02.png"})
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3 + 2
    assert text.count('class="nearest"') == text.count('class="nearest copy"') == 1
    assert text.index("nearest 40%") < text.index("training copy 93%") < text.index("unknown")
    pixels = Store.open(run.cache / "images" / "train").images[3]
    shown = text[: text.index("training copy 93%")].rpartition("base64,")[2].partition('"')[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(shown)))), pixels)
    shutil.rmtree(run.path / "cache")
    assert write_report(run).read_text(encoding="utf-8").count("data:image/png;base64,") == 3


def test_a_report_shows_copies_in_galleries(run):
    model = TextToImage.from_pretrained(run, "cpu")
    (best,) = model("a red heart", num_images=1, candidates=3)
    train_on(run, [[15] * 16, best.codes])
    sample_gallery(run, TextToImage.from_pretrained(run, "cpu"), ["a red heart"], 2, 3)
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count("training copy 100%") == 1


def test_held_out_losses_by_caption_are_of_the_best_step(run):
    for step, true in ((10, 4.0), (20, 2.0), (30, 3.0)):
        others = {"held_out_another_caption": true + 1, "held_out_no_caption": true + 0.5}
        run.log("transformer", step, held_out_image=true, **others)
    table = caption_losses(run.metrics())
    assert table.rows == [
        ["the true caption", "2.000", "2.885"],
        ["another image's", "3.000", "4.328"],
        ["none", "2.500", "3.607"],
    ]
    assert "step 20" in table.note
    assert table.note in write_report(run).read_text(encoding="utf-8")
