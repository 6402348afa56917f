"""The first scenes and images of two panels of a split, for the tests."""

from dalle_mini_impl.data.synthetic.panels import Change, Panels, PanelsConfig, random_panels
from dalle_mini_impl.data.synthetic.scenes import Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, random_scene

SPLITS = ("train", "validation", "held_out")


def random_scenes(split: str = "train", count: int = 300, **settings) -> list[Scene]:
    return [random_scene(index, split, ShapesConfig(**settings)) for index in range(count)]


def panels_of(split: str = "train", count: int = 200, **settings) -> list[tuple[Panels, Change]]:
    return [random_panels(index, split, PanelsConfig(**settings)) for index in range(count)]
