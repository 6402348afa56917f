"""Synthetic collections as sources of examples."""

from pathlib import Path

from PIL import Image

from dalle_mini_impl.data import examples as examples_module
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.data.synthetic import source as synthetic
from dalle_mini_impl.data.synthetic.claims import Claims, verify_claims
from dalle_mini_impl.data.synthetic.scenes import Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig
from tests.data.collections.colored_squares import examples

SHAPES = DataConfig(shapes=ShapesConfig(train_examples=20))


def test_shapes():
    shapes = ShapesConfig(train_examples=30, held_out_examples=5, captions_per_scene=2)
    found = examples("shapes", shapes=shapes)
    assert len(found) == 30
    for example in found:
        assert example.open(32).size == (32, 32)
        scene = Scene.from_dict(example.attributes["scene"])
        assert len(example.captions) == len(example.attributes["claims"]) == 2
        for claims in example.attributes["claims"]:
            assert all(verify_claims(Claims.from_dict(claims), scene).values())
    assert len(examples("shapes", "held_out", shapes=shapes)) == 5
    assert len(examples("shapes", limit=3)) == 3


def test_the_fingerprint_changes_with_version_and_rendering(monkeypatch):
    before = open_source(SHAPES, "train").fingerprint()
    assert open_source(SHAPES, "train").fingerprint() == before
    with monkeypatch.context() as other:
        other.setitem(synthetic.VERSIONS, "shapes", 0)
        assert open_source(SHAPES, "train").fingerprint() != before
    with monkeypatch.context() as other:
        other.setattr(
            examples_module, "render_scene", lambda scene, side: Image.new("RGB", (side, side))
        )
        assert open_source(SHAPES, "train").fingerprint() != before
    with monkeypatch.context() as other:
        other.setattr(Path, "read_bytes", None)  # the source code is not read
        assert open_source(SHAPES, "train").fingerprint() == before
