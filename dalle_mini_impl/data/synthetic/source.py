"""Collections that are drawn from a seed: scenes of shapes, and images of two panels."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.examples import Example, Source
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.panel_captions import describe_panels
from dalle_mini_impl.data.synthetic.panels import PanelsConfig, random_panels
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, describe_scene, random_scene

VERSION = 1
"""Raise it when images or their captions change in a way that few of them show."""
HASHED = 16


@dataclass(frozen=True)
class ShapesReader:
    """Draws example `index` of a split of the procedural scenes."""

    config: ShapesConfig
    split: Split

    def __call__(self, index: int) -> Example:
        scene = random_scene(index, self.split, self.config)
        described = describe_scene(scene, index, self.split, self.config)
        claims = [claim.to_dict() for _, claim in described]
        return Example(
            f"{self.split}/{index:08d}",
            scene,
            tuple(caption for caption, _ in described),
            {"scene": scene.to_dict(), "claims": claims},
        )


@dataclass(frozen=True)
class PanelsReader:
    """Draws example `index` of a split of the images of two panels."""

    config: PanelsConfig
    split: Split

    def __call__(self, index: int) -> Example:
        panels, change = random_panels(index, self.split, self.config)
        described = describe_panels(panels, change, index, self.split, self.config)
        return Example(
            f"{self.split}/{index:08d}",
            panels,
            tuple(caption for caption, _ in described),
            {"panels": panels.to_dict(), "requests": [own.to_dict() for _, own in described]},
        )


class SyntheticSource(Source):
    """One split of the collection that `config.path` names."""

    captioned = True

    def __init__(self, config: DataConfig, split: Split) -> None:
        drawn: ShapesConfig | PanelsConfig
        if config.path == "shapes":
            drawn, self.description = config.shapes, "procedural scenes"
            self.reading: ShapesReader | PanelsReader = ShapesReader(config.shapes, split)
        else:
            drawn, self.description = config.panels, "procedural images of two panels"
            self.reading = PanelsReader(config.panels, split)
        sizes = {
            "train": drawn.train_examples,
            "validation": drawn.validation_examples,
            "held_out": drawn.held_out_examples,
        }
        self.count = min(sizes[split], config.limit or sizes[split])

    def rows(self) -> Iterator[int]:
        return iter(range(self.count))

    @property
    def reader(self) -> Callable[[int], Example]:
        return self.reading

    def size(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        settings = self.reading.config.model_dump_json()
        digest = hashlib.sha256(f"{VERSION} {self.reading.split} {settings}".encode())
        # A few images notice most changes of the drawing and the wording by themselves.
        for index in range(min(self.count, HASHED)):
            example = self.reading(index)
            digest.update(repr((example.captions, example.attributes)).encode())
            digest.update(example.open(64).convert("RGB").tobytes())
        return digest.hexdigest()
