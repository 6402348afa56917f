"""No batch of any training stage shows or names a held-out composition, right or wrong."""

import dataclasses
import re

import pytest

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.batches import CodeBatches, ImageBatches
from dalle_mini_impl.data.synthetic.panels import Change, Panels, apply_change
from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import (
    BACKGROUNDS,
    COLORS,
    INVERSE,
    SHAPES,
    Object,
    Scene,
)
from dalle_mini_impl.data.synthetic.shapes import is_held_out, pair_held_out, relation_held_out
from dalle_mini_impl.evaluation.detectors.panels import find_panels
from dalle_mini_impl.evaluation.detectors.scenes import find_scene
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training import loop
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.run_stages import run_stages
from tests.data.test_negatives import RELATIONS, one_of
from tests.tiny import TWO_STEPS, tiny_experiment

STEPS = 40
"""Batches of each source that are read."""
LOOKED_AT = 4
"""Batches whose images are read by the detectors."""
KNOWN = {"images", "captions", "negatives", "groups", "texts", "codes"}
"""What batches hold; of these, captions and negatives are text."""
VQGAN = {
    "preset": "vqgan", "autoencoder": {"width": 32, "blocks": 1},
    "quantizer": {"codes": 16, "initialization": "random"},
    "objective": {"perceptual": {"network": {"training": TWO_STEPS}}},
}  # fmt: skip
UNSEEN = (r"circle that is (red|blue)$", r"a \w+ star that is black")

NOUN = rf"(?:{one_of(COLORS)} )?\b{one_of(SHAPES)}(?:e?s)?\b"
RELATED = re.compile(
    rf"\b{one_of(SHAPES)}(?:e?s)? {one_of(RELATIONS)} an? (?:\w+ )??(?:\w+ )??{one_of(SHAPES)}\b"
)
RECOLORED = re.compile(rf"\b(?:in|painted) {one_of(COLORS)}\b")
MIRRORED = re.compile("mirrored|flipped|mirror image")


def change_of(caption: str) -> Change:
    """What a caption of two panels says of color and direction."""
    color = RECOLORED.search(caption)
    if color:
        return Change("color", color[1])
    return Change("mirrored" if MIRRORED.search(caption) else "same")


def names_held_out(caption: str) -> bool:
    """Whether a caption of a synthetic collection names a held-out pair or relation."""
    change, nouns = change_of(caption), re.findall(NOUN, caption)
    colors = [own or change.color for own, _ in nouns] + [change.color] * len(nouns)
    shapes = [shape for _, shape in nouns] * 2
    pairs = zip(colors, shapes, strict=True)
    if any(color and pair_held_out(color, shape) for color, shape in pairs):
        return True
    for first, word, second in RELATED.findall(caption):
        relation = RELATIONS[word]
        mirrored = INVERSE[relation] if change.kind == "mirrored" else relation
        if any(relation_held_out(first, own, second) for own in (relation, mirrored)):
            return True
    return False


def has_held_out_pair(objects) -> bool:
    known = [item for item in objects if item.shape in SHAPES]
    return any(pair_held_out(item.color, item.shape) for item in known)


class Shapes:
    def settings(self, folder):
        return {"path": "shapes", "shapes": {"train_examples": 120, "validation_examples": 8}}

    def named(self, caption, attributes):
        return names_held_out(caption)

    def shown(self, image):
        return has_held_out_pair(find_scene(image).objects)

    def trained_on(self, attributes):
        return is_held_out(Scene.from_dict(attributes["scene"]))


class PanelImages(Shapes):
    def settings(self, folder):
        return {"path": "panels", "panels": {"train_examples": 120, "validation_examples": 8}}

    def named(self, caption, attributes):
        upper = Panels.from_dict(attributes["panels"]).upper
        return names_held_out(caption) or is_held_out(apply_change(change_of(caption), upper))

    def shown(self, image):
        upper, lower = find_panels(image)
        return has_held_out_pair((*upper.objects, *lower.objects))

    def trained_on(self, attributes):
        panels = Panels.from_dict(attributes["panels"])
        return is_held_out(panels.upper) or is_held_out(panels.lower)


class Folder(Shapes):
    """Files of one object each, with captions that hold out by regular expressions."""

    def settings(self, folder):
        kinds = [(shape, color) for shape in SHAPES[:4] for color in ("red", "blue", "green")]
        for at, (shape, color) in enumerate(kinds * 4):
            item, ground = Object(shape, color, (16, 24)[at % 2], 8, 8), list(BACKGROUNDS)[at % 4]
            scene = Scene((item,), ground)
            render_scene(scene, 64).save(folder / f"{at}.png")
            caption = f"a {shape} that is {color}\na {item.size} {shape} that is {color}"
            (folder / f"{at}.txt").write_text(caption, encoding="utf-8")
        return {"path": str(folder), "held_out": 0.1, "held_out_captions": UNSEEN}

    def named(self, caption, attributes):
        return any(re.search(expression, caption, re.I) for expression in UNSEEN)

    def shown(self, image):
        (item,) = find_scene(image).objects
        return self.named(f"a {item.shape} that is {item.color}", None)

    def trained_on(self, attributes):
        return False


@pytest.mark.parametrize(
    "collection", [Shapes(), PanelImages(), Folder()], ids=lambda c: type(c).__name__
)
def test_training_never_sees_what_is_held_out(tmp_path, monkeypatch, collection):
    """Runs every stage for two steps, then reads further batches of all that it trained on."""
    sources, vocabulary = {}, []

    class Recorded(loop.Loop):
        def __init__(self, objective, batches, config, files, preview=None, held_out=None):
            sources[files.stage] = batches
            super().__init__(objective, batches, config, files, preview, held_out)

    train_vocabulary = CaptionTokenizer.train

    def record_captions(captions, config):
        vocabulary.extend(captions)
        return train_vocabulary(captions, config)

    monkeypatch.setattr(loop, "Loop", Recorded)
    monkeypatch.setattr(CaptionTokenizer, "train", record_captions)
    (tmp_path / "files").mkdir()
    experiment = tiny_experiment(
        TWO_STEPS | {"batch_size": 8, "previews": 0},
        data={**collection.settings(tmp_path / "files"), "image_size": 64, "workers": 1},
        captions={"vocabulary": None, "vocabulary_size": 400, "context": 80, "dropout": 0.1},
        image_tokenizer=VQGAN,
        clip={"hard_negatives": 2},
    )
    run = RunFolder.create(tmp_path / "run", experiment)
    run_stages(run)
    assert set(sources) == {"perceptual", "image_tokenizer", "transformer", "clip"}
    store, negatives = StageContext(run).store, 0
    assert not any(map(collection.trained_on, store.attributes))
    assert {caption for own in store.captions for caption in own} >= set(vocabulary) > set()
    for batches in sources.values():
        negatives += check_batches(batches, store, run.captions(), collection)
    assert negatives > STEPS


def check_batches(batches, store, words, collection) -> int:
    """Reads a source's batches; the number of wrong captions among them."""
    negatives = 0
    for step in range(STEPS):
        batch, rows = batches(step), batches.order.indices(len(store), step)
        texts = {"captions": batch.captions[:, None]}
        if isinstance(batches, ImageBatches):
            if step < LOOKED_AT:
                assert not any(map(collection.shown, to_uint8(batch.images)))
            if batch.negatives is not None:
                texts["negatives"] = batch.negatives
                negatives += int(batch.negatives.any(dim=-1).sum())
        else:
            assert isinstance(batches, CodeBatches)
            assert batches.cache.key.data == store.fingerprint
        assert {field.name for field in dataclasses.fields(batch)} <= KNOWN
        for ids in texts.values():
            assert not ids[..., -1].any(), "captions are cut: read them in a longer context"
            for row, of_image in zip(rows, ids, strict=True):
                captions = map(words.decode, of_image)
                named = [c for c in captions if collection.named(c, store.attributes[row])]
                assert named == []
    return negatives
