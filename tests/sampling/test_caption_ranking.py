"""Ranking captions for an image, and the commands that write and rank captions."""

import json

import pytest
import torch
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.store import prepare
from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import Object, Scene
from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import RunClip
from tests.data.synthetic.test_swaps import FIXTURE, PAIRS
from tests.tiny import tiny_run

CAPTIONS = ["a red heart", "a blue star", "two green squares", "a small ring"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def model(run) -> TextToImage:
    return TextToImage.from_pretrained(run, "cpu")


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "image.png"
    Image.effect_noise((40, 40), 80).convert("RGB").save(path)
    return path


def test_scores_are_those_of_the_models(model, image_file):
    image = Image.open(image_file)
    ranked = model.rank_captions(image, CAPTIONS)
    assert sorted(r.caption for r in ranked) == sorted(CAPTIONS)
    pixels = to_tensor([image], 32)
    codes = model.image_tokenizer.encode(pixels)
    for found in ranked:
        ids = torch.from_numpy(model.captions.encode([found.caption]))
        with torch.no_grad():
            own = model.dalle.log_likelihood(ids, codes).sum()
            null = model.dalle.log_likelihood(torch.zeros_like(ids), codes).sum()
            cosine = model.clip.encode_image(pixels) @ model.clip.encode_text(ids).T
        assert found.log_likelihood == pytest.approx(own.item(), abs=1e-3)
        assert found.log_likelihood_ratio == pytest.approx((own - null).item(), abs=1e-3)
        assert found.clip_score == pytest.approx(cosine.item(), abs=1e-5)


def test_the_order_is_the_one_that_was_asked_for(model, image_file):
    image = Image.open(image_file)
    by_likelihood = [r.log_likelihood for r in model.rank_captions(image, CAPTIONS)]
    assert by_likelihood == sorted(by_likelihood, reverse=True)
    by_clip = [r.clip_score for r in model.rank_captions(image, CAPTIONS, "clip")]
    assert by_clip == sorted(by_clip, reverse=True)


@pytest.mark.parametrize("attribute", list(PAIRS))
def test_a_trained_model_tells_the_true_caption_from_one_with_an_attribute_exchanged(attribute):
    trained = TextToImage.from_pretrained(FIXTURE, "cpu")
    for pair in PAIRS[attribute]:
        for caption in pair:
            _, size, color, shape, *_, background, _ = caption.split()
            scene = Scene((Object(shape, color, size, x=16, y=16),), background)
            ranked = trained.rank_captions(render_scene(scene), list(pair))
            assert ranked[0].caption == caption
            assert ranked[0].log_likelihood > ranked[1].log_likelihood + 2


def test_a_model_that_does_not_see_the_words_cannot_tell():
    blind = TextToImage.from_pretrained(FIXTURE, "cpu")
    blind.dalle.embedding.token.weight.zero_()
    first, second = PAIRS["color"][0]
    ranked = blind.rank_captions(render_scene(Scene((), "white")), [first, second])
    assert ranked[0].log_likelihood == pytest.approx(ranked[1].log_likelihood, abs=1e-3)


def test_an_order_without_a_clip_for_it_is_refused(run, image_file):
    model = TextToImage.from_pretrained(run, "cpu")
    model.clip = None
    assert model.rank_captions(Image.open(image_file), CAPTIONS)[0].clip_score is None
    with pytest.raises(ValueError, match="rank_by is 'both', but there is no CLIP"):
        model.rank_captions(Image.open(image_file), CAPTIONS, "both")


def test_many_captions_are_scored_as_few_are(model, image_file):
    image = Image.open(image_file)
    many = [f"{number} red stars" for number in range(70)]
    found = {r.caption: r.log_likelihood for r in model.rank_captions(image, many)}
    few = {r.caption: r.log_likelihood for r in model.rank_captions(image, many[:3])}
    assert all(found[caption] == pytest.approx(few[caption], abs=1e-3) for caption in few)


def test_sample_continues_text(run, capsys):
    command = ["sample", "--continue-text", "a small red", "--run", str(run.path), "--num", "3"]
    assert main([*command, "--device", "cpu", "--top-k", "5", "--temperature", "0.8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        probability, caption = line.split(maxsplit=1)
        assert float(probability) < 0
        assert caption.startswith("a small red")


def test_what_was_written_can_be_painted(run, capsys, tmp_path):
    command = ["sample", "--continue-text", "a", "--run", str(run.path), "--num", "2", "--paint"]
    assert main([*command, "--num-images", "1", "--out", str(tmp_path), "--device", "cpu"]) == 0
    written = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[:2]]
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert [" ".join(sample["caption"].split()) for sample in samples] == written


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["sample", "a", "--continue-text", "a"], "give it, or captions"),
        (["sample", "a", "--paint"], "--paint needs --continue-text"),
        (["sample", "--continue-text", "a", "--top-p", "0.5"], "--top-p would do nothing; add"),
        (["sample", "--continue-text", "a", "--num", "0"], "--num 0: write at least one"),
        (["sample", "--continue-text", "a " * 40], "more tokens than the 24"),
        (["caption", "IMAGE", "--draw", "0"], "--draw 0: draw at least one"),
        (["caption", "IMAGE", "--top", "-1"], "--top -1: show one caption or more, or 0"),
        (["caption", "IMAGE", "--captions", "a", "--draw", "9"], "--draw is for candidates"),
        (["caption", "IMAGE", "--captions", "a", "--begin", "a"], "give it, or --captions"),
        (
            ["caption", "IMAGE", "--captions", "a", "--source", "training"],
            "--source is for candidates",
        ),
        (["caption", "IMAGE", "--source", "training"], "training captions are not in"),
        (["caption", "IMAGE", "--begin", "a " * 40], "--begin: the prompt"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(run, image_file, capsys, command, complaint):
    command = [str(image_file) if part == "IMAGE" else part for part in command]
    assert main([*command, "--run", str(run.path)]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_the_caption_command_ranks_what_it_is_given(run, model, image_file, capsys):
    given = ["caption", str(image_file), "--captions", *CAPTIONS, "--run", str(run.path)]
    assert main([*given, "--json", "--top", "2"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    expected = model.rank_captions(Image.open(image_file), CAPTIONS)[:2]
    assert [c["caption"] for c in answer["captions"]] == [r.caption for r in expected]
    assert main(given) == 0
    table = capsys.readouterr().out
    assert "a red heart" in table
    assert "clip score" in table


def test_candidates_are_written_by_the_model_or_taken_from_training(run, image_file, capsys):
    command = ["caption", str(image_file), "--run", str(run.path), "--json", "--draw", "6"]

    def found(*options: str) -> list[str]:
        assert main([*command, *options]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["images"]
        return [caption["caption"] for caption in answer["captions"]]

    assert all(caption.startswith("a small") for caption in found("--begin", "a small"))
    store = prepare(run.experiment.data, "train", run.cache / "images", lambda _: None)
    known = {text for captions in store.captions for text in captions}
    trained = found("--source", "training", "--begin", "a ")
    assert len(trained) == 6
    assert set(trained) <= known


def test_training_captions_that_clip_finds_closest_are_judged(run, model, image_file, capsys):
    store = prepare(run.experiment.data, "train", run.cache / "images", lambda _: None)
    known = sorted({text for captions in store.captions for text in captions if text})
    clip = RunClip(model.clip, model.captions)
    cosines = clip.encode_texts(known) @ clip.encode_images([Image.open(image_file)])[0]
    command = ["caption", str(image_file), "--run", str(run.path), "--json", "--source", "training"]
    assert main([*command, "--draw", "3"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    expected = {known[row] for row in cosines.topk(3).indices.tolist()}
    assert {caption["caption"] for caption in answer["captions"]} == expected


def test_training_captions_are_embedded_once_for_all_images(run, image_file, capsys, monkeypatch):
    prepare(run.experiment.data, "train", run.cache / "images", lambda _: None)
    embedded = []
    original = RunClip.encode_texts

    def counting(self, texts):
        embedded.append(len(texts))
        return original(self, texts)

    monkeypatch.setattr(RunClip, "encode_texts", counting)
    Image.new("RGB", (40, 40), "red").save(image_file.with_name("red.png"))
    command = ["caption", str(image_file.parent), "--run", str(run.path), "--json", "--draw", "3"]
    assert main([*command, "--source", "training"]) == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 2
    assert len(embedded) == 1
