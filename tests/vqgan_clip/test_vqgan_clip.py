"""Painting along a gradient: what is climbed rises, what is flipped does not, the best is kept."""

import json
import math
import shutil

import pytest
import torch
from PIL import Image

from benchmarks.latent_optimization import shares, table
from dalle_mini_impl.cli import optimize as command
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.models.code_head import split_code
from dalle_mini_impl.models.dalle import Dalle, TransformerConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import (
    DvaeConfig,
    FsqConfig,
    VqganConfig,
    build_image_tokenizer,
)
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import RunClip
from dalle_mini_impl.runs.loading import load_image_tokenizer
from dalle_mini_impl.vqgan_clip.code_prior import CodePrior, CodePriorConfig
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace
from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import (
    CORNERS,
    CutoutsConfig,
    cut,
    projective_maps,
    random_views,
    warp,
)
from dalle_mini_impl.vqgan_clip.judge import total_variation
from dalle_mini_impl.vqgan_clip.loop import Proposals, optimize
from dalle_mini_impl.vqgan_clip.prompts import Prompt, PromptScore, parse_prompt, spherical_distance
from dalle_mini_impl.vqgan_clip.record import curve, save_film
from tests.color_run import color_run, patch

QUICK = OptimizeConfig(steps=20, held_out=0, cutouts=CutoutsConfig(count=4, chunk=2))
STILL = CutoutsConfig(count=1, whole=1.0, perspective=0.0, color=0.0, noise=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def paint(latents):
    """A decoder by hand: three latent channels are the colors, at four times the side."""
    return torch.nn.functional.interpolate(latents.sigmoid(), scale_factor=4)


def redness(pixels):
    return (pixels[:, 0] - pixels[:, 1:].mean(dim=1)).mean(dim=(1, 2))


def start(rows: int = 1):
    return torch.randn(rows, 3, 4, 4, generator=seeded(3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return color_run(tmp_path_factory.mktemp("runs") / "colors")


# The loop.


def test_the_score_rises_and_its_opposite_does_not():
    before = redness(paint(start()))
    risen = optimize(paint, redness, start(), QUICK, seeded())
    assert (redness(risen.images) > before + 0.3).all()
    torch.testing.assert_close(risen.scores, redness(risen.images))
    flipped = optimize(paint, lambda x: -redness(x), start(), QUICK, seeded())
    assert (redness(flipped.images) < before - 0.3).all()


def test_each_row_keeps_its_own_best_and_never_falls_below_its_start():
    # Far too large steps: the images jump about, the best stays.
    wild = QUICK.model_copy(update={"learning_rate": 50.0, "total_variation": 0.0})

    def narrow(pixels):
        return -(
            pixels.mean(dim=(1, 2, 3)) - torch.tensor([0.5, 0.3]).repeat(len(pixels) // 2)
        ).abs()

    seen = []
    result = optimize(
        paint, narrow, start(2), wild, seeded(), progress=lambda s: seen.append(narrow(s.images))
    )
    every = torch.stack(seen)
    torch.testing.assert_close(result.scores, every.amax(dim=0))
    assert (result.scores >= every[0]).all()
    torch.testing.assert_close(result.scores, narrow(paint(result.latents)))
    assert torch.equal(result.steps, every.argmax(dim=0))
    torch.testing.assert_close(result.first_scores, every[0])


def test_the_size_of_the_chunks_changes_memory_only():
    def run_with(chunk: int):
        cutouts = CutoutsConfig(count=6, chunk=chunk, flip=True)
        settings = OptimizeConfig(steps=5, cutouts=cutouts)
        return optimize(paint, redness, start(2), settings, seeded(), size=8)

    whole, parts = run_with(6), run_with(1)
    torch.testing.assert_close(parts.latents, whole.latents, atol=1e-4, rtol=1e-4)


def test_the_seed_decides():
    def run_with(seed: int):
        return optimize(paint, redness, start(), QUICK, seeded(seed)).latents

    assert torch.equal(run_with(1), run_with(1))
    assert not torch.equal(run_with(1), run_with(2))


def test_an_interruption_keeps_the_best_so_far():
    def interrupt(snapshot):
        if snapshot.record["step"] == 6:
            raise KeyboardInterrupt

    result = optimize(paint, redness, start(), QUICK, seeded(), progress=interrupt)
    assert result.interrupted
    assert [record["step"] for record in result.history] == list(range(7))
    assert (result.scores > result.first_scores).all()
    assert not optimize(paint, redness, start(), QUICK, seeded()).interrupted


def test_the_learning_rate_follows_its_schedule():
    settings = OptimizeConfig(steps=100, learning_rate=0.5, warmup=0.1, cutouts=STILL)
    rates = [
        r["learning_rate"] for r in optimize(paint, redness, start(), settings, seeded()).history
    ]
    assert max(rates) == pytest.approx(0.5)
    assert rates[0] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05)
    constant = settings.model_copy(update={"schedule": "constant", "warmup": 0.0, "steps": 3})
    history = optimize(paint, redness, start(), constant, seeded()).history
    assert [r["learning_rate"] for r in history] == [0.5] * 4


def test_total_variation_smooths():
    def weighed(weight: float):
        settings = OptimizeConfig(steps=40, total_variation=weight, cutouts=STILL)
        return optimize(paint, lambda x: 0 * redness(x), start(), settings, seeded())

    rough, smooth = weighed(0.0), weighed(1.0)
    assert total_variation(smooth.images) < 0.6 * total_variation(rough.images)


def test_a_penalty_counts_against_the_score():
    def far(latents):
        return 10 * latents.square().mean(dim=(1, 2, 3))

    free = optimize(paint, redness, start(), QUICK, seeded())
    held = optimize(paint, redness, start(), QUICK, seeded(), penalty=far)
    assert held.latents.square().mean() < 0.5 * free.latents.square().mean()
    assert held.history[-1]["penalty"] < held.history[0]["penalty"]


def test_a_gradient_that_is_no_number_stops():
    with pytest.raises(FloatingPointError, match="step 0: the gradient"):
        optimize(paint, lambda x: redness(x) / 0, start(), QUICK, seeded())


def test_the_best_is_chosen_by_views_that_stay_the_same():
    settings = QUICK.model_copy(update={"held_out": 3, "learning_rate": 1e-9})

    def noisy(pixels):
        return (pixels - pixels.roll(1, dims=-1)).square().mean(dim=(1, 2, 3))

    first = optimize(paint, noisy, start(2), settings, seeded(1))
    scores = [record["score"] for record in first.history]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-6)
    again = optimize(paint, noisy, start(2), settings, seeded(2))
    torch.testing.assert_close(again.first_scores, first.first_scores)
    plain = noisy(paint(start(2)))
    assert (first.first_scores - plain).abs().min() > 1e-4


def brighter(latents, progress, generator):
    """Four maps for each: the same, one much redder, one less red, noise."""
    redder = latents + torch.tensor([3.0, -3.0, -3.0]).view(1, 3, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    return torch.cat((latents, redder, latents - 1, noise))


def test_the_best_proposal_is_kept_where_it_beats_what_it_costs():
    def told(cost):
        return optimize(
            paint, redness, start(2), QUICK, seeded(), proposals=Proposals(brighter, cost)
        )

    free = told(lambda latents: latents.new_zeros(len(latents)))
    torch.testing.assert_close(free.scores, redness(free.images))
    assert (free.scores > 0.9).all()
    # The start is a candidate as well, and here the only one that costs nothing.
    dear = told(lambda latents: 9 * (latents - start(len(latents))[:1]).abs().mean((1, 2, 3)))
    assert torch.equal(dear.latents[0], start(2)[0])
    assert dear.steps[0] == 0
    assert dear.scores[0] == dear.first_scores[0]


def test_proposals_wait_their_share_and_an_interruption_before_them_keeps_what_was_pushed():
    asked = []

    def draw(latents, progress, generator):
        asked.append(progress)
        return latents

    def interrupt(snapshot):
        if snapshot.record["step"] == 5:
            raise KeyboardInterrupt

    dear = Proposals(draw, lambda latents: latents.new_full((len(latents),), 1.0))
    settings = QUICK.model_copy(update={"propose_after": 0.5, "propose_every": 4})
    optimize(paint, redness, start(), settings, seeded(), proposals=dear)
    assert asked == [12 / 20, 16 / 20, 1.0]
    result = optimize(
        paint, redness, start(), settings, seeded(), proposals=dear, progress=interrupt
    )
    assert result.interrupted
    assert (result.scores > result.first_scores).all()


# Cutouts.


def test_a_still_view_is_the_image():
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    views = random_views(STILL, seeded())
    torch.testing.assert_close(cut(images, views, 8), images, atol=1e-5, rtol=1e-5)


def test_corners_go_where_they_are_sent():
    corners = torch.tensor(CORNERS)[None] * 0.5 + 0.2 * torch.rand(5, 4, 2, generator=seeded())
    maps = projective_maps(corners)
    points = torch.cat((torch.tensor(CORNERS), torch.ones(4, 1)), dim=1)
    mapped = torch.einsum("nij,pj->npi", maps, points)
    torch.testing.assert_close(mapped[..., :2] / mapped[..., 2:], corners, atol=1e-5, rtol=1e-5)


def test_crops_stay_inside_and_flips_mirror():
    crops = CutoutsConfig(count=50, whole=0.4, smallest=0.5, perspective=0.0, color=0, noise=0)
    views = random_views(crops, seeded())
    corners = torch.einsum("nij,pj->npi", views.maps, torch.tensor([[*c, 1.0] for c in CORNERS]))
    assert corners[..., :2].abs().max() <= 1 + 1e-5
    sides = (corners[:, 1, 0] - corners[:, 0, 0]) / 2
    assert (sides[:20] - 1).abs().max() < 1e-5
    assert 0.5 <= sides[20:].min() < sides[20:].max() < 1

    images = torch.rand(1, 3, 8, 8, generator=seeded())
    flips = STILL.model_copy(update={"count": 20, "flip": True})
    shown = cut(images, random_views(flips, seeded()), 8)
    mirrored = [torch.allclose(view, images[0].flip(-1), atol=1e-5) for view in shown]
    straight = [torch.allclose(view, images[0], atol=1e-5) for view in shown]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 0 < sum(mirrored) < 20


def test_every_augmentation_changes_views_and_lets_the_gradient_through():
    images = torch.rand(2, 3, 16, 16, generator=seeded(), requires_grad=True)
    for change in ({"whole": 0.0}, {"perspective": 0.1}, {"color": 0.2}, {"noise": 0.1}):
        config = STILL.model_copy(update={"count": 3, **change})
        shown = cut(images, random_views(config, seeded()), 16)
        assert shown.shape == (6, 3, 16, 16)
        assert not torch.allclose(shown[:2], images, atol=1e-3), change
        assert not torch.allclose(shown[:2], shown[2:4], atol=1e-3), change
        (gradient,) = torch.autograd.grad(shown.sum(), images)
        assert gradient.abs().sum() > 0


def test_large_images_are_averaged_not_skipped():
    images = torch.zeros(1, 3, 32, 32)
    images[..., ::2] = 1
    shown = cut(images, random_views(STILL, seeded()), 8)
    torch.testing.assert_close(shown, torch.full_like(shown, 0.5), atol=1e-5, rtol=0)


# Prompts.


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a heart", Prompt("a heart", 1.0)),
        ("a heart:2.5", Prompt("a heart", 2.5)),
        ("blur : -0.5", Prompt("blur", -0.5)),
        ("title: a heart", Prompt("title: a heart", 1.0)),
        ("at 12:30:1", Prompt("at 12:30", 1.0)),
        ("C:\\a.png", Prompt("C:\\a.png", 1.0)),
    ],
)
def test_prompts_carry_weights(text, prompt):
    assert parse_prompt(text) == prompt


@pytest.mark.parametrize("text", ["a heart:0", ":1", "x:nan", "x:inf"])
def test_weights_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="not zero"):
        parse_prompt(text)


def test_spherical_distance_is_half_the_squared_angle():
    angles = torch.tensor([0.0, 0.3, 1.0, math.pi / 2, 3.0])
    points = torch.stack((angles.cos(), angles.sin()), dim=1).requires_grad_()
    distances = spherical_distance(points, torch.tensor([[1.0, 0.0]]))[:, 0]
    torch.testing.assert_close(distances, angles.square() / 2, atol=1e-4, rtol=1e-4)
    distances.sum().backward()
    assert points.grad.isfinite().all()


def test_prompts_pull_and_negative_ones_push(run):
    clip = RunClip.from_run(run, "cpu")
    flat = torch.full((1, 3, 4, 4), 0.0)
    texts = {name: clip.encode_texts([f"a picture of a {name}"])[0] for name in ("red", "blue")}

    def reached(*prompts: Prompt, image_prompts=()):
        score = PromptScore.of(clip, prompts, image_prompts)
        images = optimize(paint, score, flat, QUICK, seeded(), size=32).images
        vector = clip.encode_images(torch.nn.functional.interpolate(images, (32, 32)))[0]
        return {name: float(vector @ text) for name, text in texts.items()}

    red, blue = Prompt("a picture of a red"), Prompt("a picture of a blue")
    towards, away = reached(red), reached(Prompt(red.target, -1.0))
    assert towards["red"] > away["red"] + 0.2
    assert reached(blue)["blue"] > towards["blue"] + 0.2
    against = reached(blue, Prompt(red.target, -1.0))
    assert against["blue"] - against["red"] > towards["blue"] - towards["red"]
    by_image = reached(image_prompts=[(patch("blue"), 1.0)])
    assert by_image["blue"] > by_image["red"]
    with pytest.raises(ConfigError, match="a text or an image"):
        PromptScore.of(clip, [])


# The code space.


TOKENIZERS = {
    "fsq": FsqConfig(levels=(4, 4), width=32, blocks=1),
    "dvae": DvaeConfig(code_count=16, code_width=6, width=32, blocks=1),
    "vqgan": VqganConfig(code_count=16, code_width=6, width=32, blocks=1),
    "palette": PaletteConfig(width=32, blocks=1, pattern_levels=(3, 3), color_levels=(3,)),
}


@pytest.fixture(params=list(TOKENIZERS))
def space(request):
    torch.manual_seed(0)
    tokenizer = build_image_tokenizer(TOKENIZERS[request.param], 32)
    return CodeSpace(tokenizer.eval().requires_grad_(False))


def test_results_are_images_of_codes(space):
    """What is painted never leaves the code space: it is what the tokenizer decodes."""
    latents = space.random(2, seeded())
    result = optimize(space.decode, redness, latents, QUICK, seeded(), limits=space.limits)
    assert (result.scores > result.first_scores).all()
    codes = space.codes(result.latents)
    torch.testing.assert_close(space.tokenizer.decode(codes), result.images, atol=1e-5, rtol=1e-4)
    assert (result.latents >= space.limits.low).all()
    assert (result.latents <= space.limits.high).all()
    flipped = optimize(
        space.decode, lambda x: -redness(x), latents, QUICK, seeded(), limits=space.limits
    )
    assert (redness(flipped.images) <= result.first_scores).all()


def test_every_start_is_made_of_codes(space):
    size = space.tokenizer.image_size
    starts = [
        space.random(2, seeded()),
        space.noise(2, seeded()),
        space.solid(2, (1.0, 0.0, 0.0)),
        space.from_pixels(torch.rand(2, 3, size, size)),
    ]
    for latents in starts:
        assert torch.equal(space.from_codes(space.codes(latents)), latents)
    assert not torch.equal(space.random(2, seeded(1)), starts[0])
    assert space.codes(starts[0]).unique().numel() > 8


# The palette mixes colors that lie within the range, so nothing is clamped.
@pytest.mark.parametrize("space", ["fsq", "dvae", "vqgan"], indirect=True)
def test_a_saturated_background_can_still_change(space):
    latents = space.solid(1, (1.0, 1.0, 1.0)).requires_grad_()
    with torch.no_grad():  # a decoder whose images are far too bright everywhere
        list(space.tokenizer.decoder.parameters())[-1].add_(9.0)
    (down,) = torch.autograd.grad(space.decode(latents).sum(), latents)
    if space.tokenizer.pixels.maps == 3:
        assert down.abs().sum() > 0
    (up,) = torch.autograd.grad(-space.decode(latents).sum(), latents)
    assert up.abs().sum() == 0


def stripes(space):
    """A transformer that has seen one image: code 3 and code 9 by turns."""
    n, count = space.tokenizer.grid**2, space.tokenizer.code_count
    torch.manual_seed(0)
    config = TransformerConfig(depth=1, width=32, heads=2, ffn_width=32)
    dalle = Dalle(config, 8, 4, count, space.tokenizer.grid, space.tokenizer.factors)
    codes = torch.tensor([[3, 9]]).repeat(1, n // 2)
    captions = torch.zeros(1, 4, dtype=torch.long)
    optimizer = torch.optim.Adam(dalle.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        (-dalle.log_likelihood(captions, codes).mean()).backward()
        optimizer.step()
    return dalle.eval().requires_grad_(False), captions, codes


def test_the_prior_draws_to_likely_codes_as_far_as_it_may(space):
    dalle, captions, codes = stripes(space)

    def settled(**settings):
        config = CodePriorConfig(count=8, **settings)
        prior = CodePrior(dalle, space, captions, config)
        maps = prior.propose(space.random(2, seeded()), 1.0, seeded())
        assert maps.shape[0] == 16
        assert torch.equal(space.from_codes(space.codes(maps)), maps)
        return prior.log_likelihood(maps), space.codes(maps)

    start = space.codes(space.random(2, seeded()))
    loose, maps = settled(closest=1e-3, loosest=1e-4, settling=1)
    whole = (maps == codes).float().mean(dim=1)
    assert whole.max() > 0.9  # where the whole map was free
    assert whole.min() < 0.9  # a part of it
    assert (maps == start.repeat(8, 1)).any(dim=1).float().mean() > 0.4  # parts leave the rest
    close, maps = settled(closest=1e3, loosest=1e3, held=1e4, settling=1)
    assert torch.equal(maps, start.repeat(8, 1))
    assert loose.mean() > close.mean() + 1

    prior = CodePrior(dalle, space, captions, CodePriorConfig())
    expected = dalle.log_likelihood(captions.expand(2, -1), start).mean(dim=1)
    latents = space.from_codes(start)
    torch.testing.assert_close(prior.log_likelihood(latents), expected)
    torch.testing.assert_close(prior.cost(0.5)(latents), -0.5 * expected)


def test_parts_are_painted_anew_and_first_maps_stay_closer(space):
    config = CodePriorConfig(closest=4.0, loosest=0.5, held=50.0, settling=8.0)
    dalle, captions, _ = stripes(space)
    prior = CodePrior(dalle, space, captions, config)
    last, first = (prior.closeness(200, progress, seeded()) for progress in (1.0, 0.0))
    free = last < 50
    assert 0.4 < free.all(dim=1).float().mean() < 0.7
    assert free.any(dim=1).all()
    assert 0.5 <= last[free].min() < 1 < 2 < last[free].max() <= 4
    torch.testing.assert_close(first[free], 8 * last[free])
    assert (first[~free] == 50).all()


def test_distances_are_least_at_the_own_code(space):
    latents = space.random(2, seeded())
    distances = space.distances(latents)
    factors = space.tokenizer.factors
    digits = split_code(space.codes(latents), factors)
    for own, digit in zip(distances, digits, strict=True):
        assert torch.equal(own.argmin(-1), digit)
        assert own.min() >= 0


def test_nearness_costs_nothing_on_codes_and_more_away_from_them(space):
    latents = space.random(2, seeded())
    cost = space.penalty(1.0)
    assert cost(latents).abs().max() < 1e-6
    away = (latents + 0.1 * space.limits.scale).requires_grad_()
    assert (cost(away) > 0).all()
    cost(away).sum().backward()
    assert away.grad.abs().sum() > 0


def test_zoom_and_pan_move_the_image():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 3:5, 3:5] = 1
    zoomed = warp(images, torch.diag(torch.tensor([0.5, 0.5, 1.0]))[None], 8)
    assert zoomed.sum() == pytest.approx(4 * float(images.sum()), rel=0.3)
    moved = warp(images, torch.tensor([[[1.0, 0, 0.5], [0, 1, 0], [0, 0, 1]]]), 8)
    torch.testing.assert_close(moved, images.roll(-2, -1))


# Films and curves.


def test_films_hold_every_frame(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (16, 16), (20 * i, 0, 255 - 20 * i)) for i in range(5)]
    for ending in (".webp", ".gif"):
        save_film(frames, tmp_path / f"film{ending}")
        with Image.open(tmp_path / f"film{ending}") as film:
            assert film.n_frames == 5
    with pytest.raises(ConfigError, match="no kind of film"):
        save_film(frames, tmp_path / "film.avi")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="ffmpeg is not installed"):
        save_film(frames, tmp_path / "film.mp4")


def test_the_curve_shows_both_lines():
    history = [{"step": i, "score": i / 10, "loss": -i / 20} for i in range(10)]
    colors = {color for _, color in curve(history).getcolors(10**6)}
    assert {(30, 90, 200), (220, 120, 20)} <= colors


# The command.

SMALL = ("--steps", "6", "--cutouts.count", "4", "--film.every", "3", "--device", "cpu")


def test_the_command_paints_and_records(run, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(
        ["a picture of a red", "--prompt", "a picture of a blue:-0.5", "--num-images", "2",
         "--run", str(run.path), "--out", str(out), "--film.zoom", "1.1", *SMALL]
    )  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert [image["file"] for image in result["images"]] == ["image.png", "image-01.png"]
    scores = [image["score"]["best"] for image in result["images"]]
    assert scores == sorted(scores, reverse=True)
    assert all(p["score"]["best"] >= p["score"]["start"] for p in result["images"])
    assert len(result["history"]) == 7
    assert not result["interrupted"]
    for name in ("image.png", "sheet.png", "preview.png", "loss.png", "film.webp"):
        Image.open(out / name).load()
    assert [f.name for f in sorted((out / "frames").iterdir())] == [
        "00000.png", "00003.png", "00006.png",
    ]  # fmt: skip
    codes = torch.tensor([result["images"][0]["codes"]])
    decoded = load_image_tokenizer(run).decode(codes)
    painted = torch.tensor(list(Image.open(out / "image.png").tobytes())).view(32, 32, 3)
    torch.testing.assert_close(
        painted.permute(2, 0, 1) / 255, decoded[0], atol=1.5 / 255, rtol=0, check_dtype=False
    )
    printed = capsys.readouterr().out
    assert "step 6/6" in printed
    first = result["images"][0]["clip_score"]
    assert f"with the text {first['start']:.3f}, then {first['best']:.3f}" in printed


def test_with_the_sign_of_its_score_flipped_the_command_does_not_improve(
    run, tmp_path, monkeypatch
):
    def cosines() -> tuple[float, float]:
        command.main(
            ["a picture of a red", "--prior", "0", "--steps", "20", "--cutouts.count", "4",
             "--film.format", "none", "--run", str(run.path), "--out", str(tmp_path)]
        )  # fmt: skip
        (image,) = json.loads((tmp_path / "result.json").read_text())["images"]
        return image["clip_score"]["start"], image["clip_score"]["best"]

    start, best = cosines()
    assert best > start + 0.05
    climb = PromptScore.__call__
    monkeypatch.setattr(PromptScore, "__call__", lambda self, pixels: -climb(self, pixels))
    start, best = cosines()
    assert best < start


@pytest.mark.parametrize(
    "options",
    [
        ["--start", "noise"],
        ["--start", "solid", "--color", "#ff8800"],
        ["--start", "sample"],
        ["--init", "IMAGE", "--image-prompt", "IMAGE:2"],
    ],
)
def test_every_start_paints(run, tmp_path, options):
    patch("green").save(tmp_path / "green.png")
    options = [option.replace("IMAGE", str(tmp_path / "green.png")) for option in options]
    given = ["a picture of a red", "--run", str(run.path), "--out", str(tmp_path / "out")]
    command.main([*given, *SMALL, "--film.format", "none", *options])
    assert (tmp_path / "out" / "image.png").is_file()


def test_refining_starts_from_the_best_candidate_and_never_loses(run, tmp_path):
    text = "a picture of a red"
    options = ["--run", str(run.path), "--out", str(tmp_path), *SMALL, "--prior", "0"]
    command.main([text, "--refine", *options, "--nearness", "0"])
    result = json.loads((tmp_path / "result.json").read_text())
    (image,) = result["images"]
    best = TextToImage.from_pretrained(run, "cpu")(text, candidates=4, num_images=1)[0]
    assert image["clip_score"]["start"] == pytest.approx(best.clip_score, abs=0.02)
    assert image["score"]["best"] >= image["score"]["start"]
    assert result["arguments"]["settings"]["learning_rate"] == 0.03


def test_without_a_transformer_the_prior_is_left_out(run, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(run.path, bare)
    (bare / "dalle.safetensors").unlink()
    command.main(["a red", "--run", str(bare), "--out", str(tmp_path / "out"), *SMALL])
    assert "no transformer yet: painting without" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "say what to paint"),
        (["x", "--start", "image"], "needs --init"),
        (["x", "--init", "a.png", "--start", "noise"], "exclude each other"),
        (["x", "--refine", "--start", "noise"], "--refine starts"),
        (["--prompt", "x", "--start", "sample"], "give it first"),
        (["x", "--num-images", "0"], "one image or more"),
        (["x", "--prior", "-1"], "0 or more"),
        (["--prompt", "x", "--prior-text"], "asks the transformer with the text"),
    ],
)
def test_impossible_wishes_are_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        command.main(options)


def test_only_independent_trials_have_an_interval():
    found = shares([{"object": True, "color": False}, {"object": True}])
    assert found["all attributes"] == {"right": 2, "of": 3, "share": 2 / 3}
    assert found["whole images"]["share"] == 0.5
    assert found["object"]["interval"] == wilson_interval(2, 2)
    scores = {"mean": 0.5, "error": 0.1}
    clips = {"own_clip": scores, "independent_clip": scores}
    lines = table({"random": {"rule": found, "by_chance": found, **clips}}).splitlines()
    assert "| all attributes | 67% |" in lines
    assert "| object | 100% (34% to 100%) |" in lines
