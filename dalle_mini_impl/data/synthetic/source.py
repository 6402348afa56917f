"""Synthetic collections, generated from a seed: scenes of shapes, and images of two panels."""

import hashlib
from collections.abc import Iterator
from functools import partial

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Example, Source
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.panel_captions import describe_panels
from dalle_mini_impl.data.synthetic.panels import PanelsConfig, random_panels
from dalle_mini_impl.data.synthetic.shapes import (
    ShapesConfig,
    SyntheticConfig,
    describe_scene,
    random_scene,
)

VERSIONS = {"shapes": 2, "panels": 3}
"""Raise one when a change of images or captions may not show in the first few examples."""
HASHED = 16
"""Examples that the fingerprint covers."""


def shapes_example(index: int, split: Split, config: ShapesConfig) -> Example:
    """Example `index` of a split of the synthetic scenes."""
    scene = random_scene(index, split, config)
    described = describe_scene(scene, index, split, config)
    claims = [claims.to_dict() for _, claims in described]
    captions = tuple(caption for caption, _ in described)
    attributes = {"scene": scene.to_dict(), "claims": claims}
    return Example(f"{split}/{index:08d}", scene, captions, attributes)


def panels_example(index: int, split: Split, config: PanelsConfig) -> Example:
    """Example `index` of a split of the images of two panels."""
    panels, change = random_panels(index, split, config)
    described = describe_panels(panels, change, index, split, config)
    requests = [request.to_dict() for _, request in described]
    captions = tuple(caption for caption, _ in described)
    attributes = {"panels": panels.to_dict(), "requests": requests}
    return Example(f"{split}/{index:08d}", panels, captions, attributes)


class SyntheticSource(Source):
    """One split of the collection that `config.path` names."""

    captioned = True

    def __init__(self, config: DataConfig, split: Split) -> None:
        self.split = split
        self.version = VERSIONS[config.path]
        self.settings: SyntheticConfig
        if config.path == "shapes":
            self.settings, self.description = config.shapes, "synthetic scenes"
            self.reader = partial(shapes_example, split=split, config=config.shapes)
        else:
            self.settings, self.description = config.panels, "synthetic images of two panels"
            self.reader = partial(panels_example, split=split, config=config.panels)
        sizes = {
            "train": self.settings.train_examples,
            "validation": self.settings.validation_examples,
            "held_out": self.settings.held_out_examples,
        }
        self.count = min(sizes[split], config.limit or sizes[split])

    def rows(self) -> Iterator[int]:
        return iter(range(self.count))

    def size(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        settings = self.settings.model_dump_json()
        digest = hashlib.sha256(f"{self.version} {self.split} {settings}".encode())
        # A few examples reveal most changes of the rendering and the wording.
        for index in range(min(self.count, HASHED)):
            example = self.reader(index)
            digest.update(repr((example.captions, example.attributes)).encode())
            digest.update(example.open(64).convert("RGB").tobytes())
        return digest.hexdigest()
