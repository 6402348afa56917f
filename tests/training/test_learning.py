"""One tiny collection through every stage, and proof that something was learned."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from dalle_mini_impl import TextToImage
from dalle_mini_impl.cli import main
from dalle_mini_impl.cli.train import show_results
from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.run_stages import run_stages
from tests.tiny import tiny_experiment

COLORS = {"red": (220, 40, 40), "green": (30, 160, 60), "blue": (40, 60, 220)}
SIZE = 16
TRAINING = {"batch_size": 16, "compile": "off", "previews": 1, "ema": 0.9}


def draw(color: str, side: str) -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE), "white")
    left = 0 if side == "left" else SIZE // 2
    ImageDraw.Draw(image).rectangle((left, 4, left + SIZE // 2 - 1, 11), fill=COLORS[color])
    return image


def scenes() -> list[tuple[str, str]]:
    return [(color, side) for color in COLORS for side in ("left", "right")]


def caption(color: str, side: str) -> str:
    return f"a {color} box on the {side}"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("images")
    for number in range(48):
        color, side = scenes()[number % 6]
        draw(color, side).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(caption(color, side))
    experiment = tiny_experiment(
        data={"path": str(folder), "image_size": SIZE, "held_out": 0.0},
        captions={"vocabulary": None, "vocabulary_size": 280, "context": 8},
        image_tokenizer={
            "quantizer": {"codes": 25}, "downsampling": 4,
            "training": {**TRAINING, "steps": 120},
        },
        transformer={"ffn_width": 64, "training": {**TRAINING, "steps": 200}},
        clip={"patch": 2, "training": {**TRAINING, "steps": 120}},
    )  # fmt: skip
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / "boxes", experiment)
    run_stages(run, show_results=partial(show_results, lambda value, show: show()))
    return run


@pytest.fixture(scope="module")
def model(run) -> TextToImage:
    return TextToImage.from_pretrained(run)


def ids(model: TextToImage) -> torch.Tensor:
    return torch.from_numpy(model.captions.encode([caption(*scene) for scene in scenes()]))


def pixels() -> torch.Tensor:
    return to_tensor([draw(*scene) for scene in scenes()], SIZE)


@torch.no_grad()
def test_the_tokenizer_reconstructs(model):
    codes = model.image_tokenizer.encode(pixels())
    error = (model.image_tokenizer.decode(codes) - pixels()).square().mean()
    assert error < 0.1 * (pixels() - pixels().mean()).square().mean()


@torch.no_grad()
def test_the_true_caption_explains_the_codes_better_than_anothers(model):
    codes = model.image_tokenizer.encode(pixels())

    def loss(captions: torch.Tensor) -> float:
        return float(F.cross_entropy(model.dalle(captions, codes).image.transpose(1, 2), codes))

    true, other = loss(ids(model)), loss(ids(model).roll(1, dims=0))
    assert true < 0.5 * other
    assert true < loss(torch.zeros_like(ids(model)))


@torch.no_grad()
def test_clip_ranks_the_right_caption_first(model):
    similarity = model.clip.encode_image(pixels()) @ model.clip.encode_text(ids(model)).T
    assert (similarity.argmax(dim=1) == torch.arange(6)).float().mean() >= 5 / 6


def test_the_true_caption_of_a_image_ranks_first(model):
    captions = [caption(*scene) for scene in scenes()]
    for scene in scenes():
        first = model.rank_captions(draw(*scene), captions)[0]
        assert first.caption == caption(*scene)
        assert first.log_likelihood_ratio > 0


def test_prompts_are_continued_as_the_collection_does(model):
    written = {c.caption for c in model.continue_text("a red b", num_captions=12, seed=0)}
    assert {caption("red", "left"), caption("red", "right")} <= written
    free = model.continue_text("", num_captions=20, seed=0, temperature=0.7)
    known = {caption(*scene) for scene in scenes()}
    assert sum(c.caption in known for c in free) >= 15


def test_samples_show_what_their_captions_say(model):
    for color, side in scenes():
        best = np.asarray(model(caption(color, side), seed=1)[0].image, dtype=float)
        half = best[6:10, 2:6] if side == "left" else best[6:10, 10:14]
        named = np.abs(half.mean(axis=(0, 1)) - COLORS[color]).max()
        assert named < 60, f"{caption(color, side)}: {half.mean(axis=(0, 1))}"


def test_an_image_is_the_same_at_any_batch_size(model):
    together = model("a red box on the left", candidates=4, num_images=4, rank_by="none")
    chunked = model(
        "a red box on the left", candidates=4, num_images=4, rank_by="none", batch_size=3
    )
    assert [r.codes for r in together] == [r.codes for r in chunked]
    alone = model("a red box on the left", seed=2, candidates=1, num_images=1)
    assert alone[0].codes == together[2].codes
    assert alone[0].seed == together[2].seed == 2


def test_completion_keeps_the_rows_that_were_given(model):
    image = draw("blue", "right")
    given = model.encode(image)
    for result in model.complete(image, "a blue box on the right", keep_rows=2):
        assert result.codes[:8] == tuple(given[:8].tolist())


def test_inpainting_changes_nothing_outside_the_mask(model):
    image, mask = draw("blue", "right"), Image.new("L", (SIZE, SIZE))
    mask.paste(255, (0, 0, 5, 5))
    given = model.encode(image).reshape(4, 4)
    for result in model.inpaint(image, mask, "a red box on the left"):
        codes = torch.tensor(result.codes).reshape(4, 4)
        kept = torch.ones(4, 4, dtype=torch.bool)
        kept[:2, :2] = False
        assert torch.equal(codes[kept], given[kept])


def test_a_mask_is_cropped_with_its_image(model):
    wide = Image.new("RGB", (2 * SIZE, SIZE), "white")
    wide.paste(draw("blue", "right"), (SIZE // 2, 0))
    outside, thin = Image.new("L", wide.size), Image.new("L", wide.size)
    outside.paste(255, (0, 0, SIZE // 2, SIZE))
    with pytest.raises(ValueError, match="mask is black"):
        model.inpaint(wide, outside, "a box")
    thin.paste(255, (SIZE // 2, 0, SIZE // 2 + 1, 1))
    given = model.encode(wide)
    for result in model.inpaint(wide, thin, "a blue box on the right"):
        assert result.codes[1:] == tuple(given[1:].tolist())
    with pytest.raises(ValueError, match="16×16 pixels"):
        model.inpaint(wide, Image.new("L", (SIZE, SIZE), 255), "a box")


def test_an_empty_mask_and_impossible_rows_are_refused(model):
    image = draw("blue", "right")
    with pytest.raises(ValueError, match="the mask is black"):
        model.inpaint(image, Image.new("L", (SIZE, SIZE)), "a box")
    with pytest.raises(ValueError, match="keep_rows is 4"):
        model.complete(image, "a box", keep_rows=4)


def test_results_are_ranked_best_first(model):
    results = model("a green box on the left", num_images=4, candidates=4)
    scores = [result.clip_score for result in results]
    assert scores == sorted(scores, reverse=True)
    for name, field in {"likelihood": "log_likelihood", "ratio": "log_likelihood_ratio"}.items():
        ranked = model("a green box on the left", num_images=4, candidates=4, rank_by=name)
        scores = [getattr(result, field) for result in ranked]
        assert scores == sorted(scores, reverse=True)


def test_the_sample_command_writes_images_sheet_and_scores(run, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--run", str(run.path), "--num-images", "2", "--candidates", "3", "--out", str(out)]
    assert main(["sample", "a red box on the left", "a blue box on the right", *options]) == 0
    record = json.loads((out / "samples.json").read_text())
    assert [sample["caption"] for sample in record["samples"]] == (
        ["a red box on the left"] * 2 + ["a blue box on the right"] * 2
    )
    for sample in record["samples"]:
        assert Image.open(out / sample["file"]).size == (SIZE, SIZE)
        assert {"seed", "candidate", "clip_score", "log_likelihood_ratio"} <= set(sample)
    assert (out / "sheet.png").is_file()
    assert "sheet.png" in capsys.readouterr().out


def test_a_copied_run_samples_the_same(run, model, tmp_path):
    import shutil

    copy = tmp_path / "elsewhere"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("cache", "checkpoints"))
    elsewhere = TextToImage.from_pretrained(copy)
    assert elsewhere("a red box on the left", seed=3)[0].codes == (
        model("a red box on the left", seed=3)[0].codes
    )


def test_the_report_is_one_file_with_images(run):
    page = (run.path / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
