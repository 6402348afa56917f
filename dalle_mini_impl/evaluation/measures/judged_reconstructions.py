"""Whether the judge still reads scenes that went through the image tokenizer and back."""

import numpy as np
import torch

from dalle_mini_impl.data.synthetic.claims import Claims, verify_claims
from dalle_mini_impl.data.synthetic.rendering import render_scene
from dalle_mini_impl.data.synthetic.scenes import Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig, describe_scene, random_scene
from dalle_mini_impl.evaluation.judges.scenes import find_scene
from dalle_mini_impl.evaluation.suites.prompts import HALVES, SPLITS, Half
from dalle_mini_impl.images import to_images, to_tensor
from dalle_mini_impl.pipeline import TextToImage


@torch.inference_mode()
def judge_reconstructions(
    model: TextToImage, config: ShapesConfig, per_half: int
) -> list[tuple[Half, str, int, int]]:
    """How many unseen scenes the judge still reads rightly after encoding and decoding them.

    Rows of half, score, successes and trials. "claims": all claims of all captions hold. "scene":
    each object's shape, color and size, and the background, are as drawn.
    """
    size = model.image_tokenizer.image_size
    rows: list[tuple[Half, str, int, int]] = []
    for half in HALVES:
        right = {"claims": 0, "scene": 0}
        for at in range(per_half):
            scene = random_scene(at, SPLITS[half], config)
            pixels = to_tensor([render_scene(scene, size)], size).to(model.device)
            decoded = model.image_tokenizer.decode(model.image_tokenizer.encode(pixels))
            seen = find_scene(np.asarray(to_images(decoded)[0]))
            right["claims"] += _all_hold(scene, at, half, config, seen)
            right["scene"] += _content(seen) == _content(scene)
        rows += [(half, score, count, per_half) for score, count in right.items()]
    return rows


def _all_hold(scene: Scene, at: int, half: Half, config: ShapesConfig, seen: Scene) -> bool:
    claims: list[Claims] = [own for _, own in describe_scene(scene, at, SPLITS[half], config)]
    return all(all(verify_claims(own, seen).values()) for own in claims)


def _content(scene: Scene) -> tuple[list[tuple[str, str, str]], str]:
    return sorted((o.shape, o.color, o.size) for o in scene.objects), scene.background
