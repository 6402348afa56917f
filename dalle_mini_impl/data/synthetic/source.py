"""Synthetic collections, generated from a seed: scenes of shapes, and images of two panels."""

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
"""Raise it when a change of images or captions may not show in the first few examples."""
HASHED = 16
"""Examples that the fingerprint covers."""


@dataclass(frozen=True)
class ShapesReader:
    """Generates example `index` of a split of the synthetic scenes."""

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
    """Generates example `index` of a split of the images of two panels."""

    config: PanelsConfig
    split: Split

    def __call__(self, index: int) -> Example:
        panels, change = random_panels(index, self.split, self.config)
        described = describe_panels(panels, change, index, self.split, self.config)
        return Example(
            f"{self.split}/{index:08d}",
            panels,
            tuple(caption for caption, _ in described),
            {
                "panels": panels.to_dict(),
                "requests": [request.to_dict() for _, request in described],
            },
        )


class SyntheticSource(Source):
    """One split of the collection that `config.path` names."""

    captioned = True

    def __init__(self, config: DataConfig, split: Split) -> None:
        settings: ShapesConfig | PanelsConfig
        if config.path == "shapes":
            settings, self.description = config.shapes, "synthetic scenes"
            self._reader: ShapesReader | PanelsReader = ShapesReader(config.shapes, split)
        else:
            settings, self.description = config.panels, "synthetic images of two panels"
            self._reader = PanelsReader(config.panels, split)
        sizes = {
            "train": settings.train_examples,
            "validation": settings.validation_examples,
            "held_out": settings.held_out_examples,
        }
        self.count = min(sizes[split], config.limit or sizes[split])

    def rows(self) -> Iterator[int]:
        return iter(range(self.count))

    @property
    def reader(self) -> Callable[[int], Example]:
        return self._reader

    def size(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        settings = self._reader.config.model_dump_json()
        digest = hashlib.sha256(f"{VERSION} {self._reader.split} {settings}".encode())
        # A few examples reveal most changes of the rendering and the wording.
        for index in range(min(self.count, HASHED)):
            example = self._reader(index)
            digest.update(repr((example.captions, example.attributes)).encode())
            digest.update(example.open(64).convert("RGB").tobytes())
        return digest.hexdigest()
