"""Images are made square as each CLIP was trained, and libraries that cannot be used say why."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.images import fit
from dalle_mini_impl.retrieval.collection import collection, entries_of
from dalle_mini_impl.retrieval.image_index import ImageIndex
from dalle_mini_impl.retrieval.preprocessing import Preprocessing
from dalle_mini_impl.retrieval.pretrained import load_pretrained
from dalle_mini_impl.retrieval.refresh import refresh


def striped() -> Image.Image:
    """Three squares beside each other: red, green, blue."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    for third in range(3):
        pixels[:, 20 * third : 20 * (third + 1), third] = 255
    return Image.fromarray(pixels)


def colors(image: Image.Image) -> list[tuple[int, ...]]:
    """The middle of the left, of the center and of the right."""
    side = image.width
    return [image.getpixel((x, side // 2)) for x in (side // 6, side // 2, side - 1 - side // 6)]


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_each_mode_shows_its_part_of_a_wide_image():
    assert colors(Preprocessing("crop")(striped(), 30)) == [GREEN, GREEN, GREEN]
    assert colors(Preprocessing("squash")(striped(), 30)) == [RED, GREEN, BLUE]
    padded = Preprocessing("pad", fill=WHITE)(striped(), 30)
    assert colors(padded) == [RED, GREEN, BLUE]
    assert padded.getpixel((15, 2)) == WHITE
    assert Preprocessing()(striped(), 30).tobytes() == fit(striped(), 30).tobytes()


@pytest.mark.parametrize(
    ("processor", "mode", "resampling"),
    [
        ({"size": {"shortest_edge": 224}, "do_center_crop": True, "resample": 3}, "crop", 3),
        ({"size": 224, "crop_size": 224}, "crop", 3),
        ({"size": {"height": 224, "width": 224}, "resample": 3}, "squash", 3),
        ({"size": {"height": 256, "width": 256}, "resample": 2}, "squash", 2),
    ],
)
def test_processors_of_transformers_are_understood(processor, mode, resampling):
    read = Preprocessing.of_transformers(processor)
    assert (read.mode, int(read.resampling)) == (mode, resampling)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Preprocessing()),
        ({"resize_mode": "shortest", "interpolation": "bicubic"}, Preprocessing()),
        (
            {"resize_mode": "squash", "interpolation": "bilinear"},
            Preprocessing("squash", Image.Resampling.BILINEAR),
        ),
        ({"resize_mode": "longest", "fill_color": 255}, Preprocessing("pad", fill=WHITE)),
        ({"resize_mode": "longest", "fill_color": (1, 2, 3)}, Preprocessing("pad", fill=(1, 2, 3))),
    ],
)
def test_settings_of_open_clip_are_understood(settings, expected):
    assert Preprocessing.of_open_clip(settings) == expected


class Model(torch.nn.Module):
    """A CLIP of both libraries: its image vector is the mean color."""

    logit_scale = torch.tensor(2.0)

    def get_image_features(self, pixel_values):
        return pixel_values.mean(dim=(2, 3))

    encode_image = get_image_features


def siglip(monkeypatch):
    """`transformers` with a SigLIP, whose processor gives height and width."""
    sides = SimpleNamespace(image_size=6)
    config = SimpleNamespace(
        model_type="siglip",
        vision_config=sides,
        text_config=SimpleNamespace(max_position_embeddings=8),
    )
    processor = {"size": {"height": 6, "width": 6}, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    library = SimpleNamespace(
        AutoConfig=SimpleNamespace(from_pretrained=lambda name: config),
        AutoModel=SimpleNamespace(from_pretrained=lambda name, use_safetensors: Model()),
        AutoTokenizer=SimpleNamespace(from_pretrained=lambda name: None),
        ImageProcessingMixin=SimpleNamespace(get_image_processor_dict=lambda name: (processor, {})),
    )
    monkeypatch.setitem(sys.modules, "transformers", library)
    return load_pretrained("transformers:owner/siglip")


def squashing(monkeypatch):
    """`open_clip` with a model whose `resize_mode` is squash."""
    visual = SimpleNamespace(image_size=6, image_mean=(0.0,) * 3, image_std=(1.0,) * 3)
    visual.preprocess_cfg = {"resize_mode": "squash"}
    model = Model()
    model.visual = visual
    library = SimpleNamespace(
        create_model=lambda *_, **__: model, get_tokenizer=lambda architecture: None
    )
    monkeypatch.setitem(sys.modules, "open_clip", library)
    return load_pretrained("open_clip:ViT-B-16-SigLIP:webli")


@pytest.mark.parametrize("loaded", [siglip, squashing])
def test_a_clip_that_squashes_sees_the_sides_of_an_image(loaded, monkeypatch, tmp_path):
    clip = loaded(monkeypatch)
    mean = torch.nn.functional.normalize(torch.ones(1, 3), dim=-1)
    torch.testing.assert_close(clip.encode_images([striped()]), mean, atol=0.02, rtol=0)
    striped().save(tmp_path / "striped.png")
    empty = ImageIndex(collection(str(tmp_path)), "other", clip.key)
    index, _ = refresh(empty, clip, report=lambda _: None)
    torch.testing.assert_close(index.vectors, mean, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "name",
    [
        "transformers:/nowhere/clip",
        "transformers:models/clip/base",
        "open_clip:ViT-B-32:/nowhere/weights.pt",
        "open_clip:ViT-B-32:weights.safetensors",
        "open_clip:local-dir:/nowhere/clip",
        "transformers:~nobody-of-this-name/models/clip",
    ],
)
def test_a_missing_local_path_is_named(name, monkeypatch):
    siglip(monkeypatch)
    squashing(monkeypatch)
    with pytest.raises(ConfigError, match=r"there is no (file|folder) .*(nowhere|models|weights)"):
        load_pretrained(name)


@pytest.mark.parametrize("weights", ["clip.pt", "clip.bin", "folder/clip.ckpt"])
def test_weights_that_can_run_code_are_refused(weights, monkeypatch, tmp_path):
    squashing(monkeypatch)
    file = tmp_path / weights
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is not a file of safetensors.* end in \.safetensors"):
        load_pretrained(f"open_clip:ViT-B-32:{file}")
    with pytest.raises(ConfigError, match=r"no weights in safetensors"):
        load_pretrained(f"open_clip:local-dir:{file.parent}")


@pytest.mark.parametrize("library", ["transformers", "open_clip"])
def test_a_library_that_cannot_be_imported_says_why(library, monkeypatch, tmp_path):
    # As a torchvision for CUDA behaves with a torch for the CPU.
    broken = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / f"{library}.py").write_text(broken)
    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as refused:
        load_pretrained(f"{library}:owner/name")
    assert "is installed but cannot be imported: operator torchvision::nms" in str(refused.value)
    assert "is not installed" not in str(refused.value)


def test_captions_beside_indexed_images_are_read(tmp_path):
    striped().save(tmp_path / "flag.png")
    striped().save(tmp_path / "other.png")
    (tmp_path / "flag.txt").write_text("three stripes\na flag\n", encoding="utf-8")
    entries = entries_of(collection(str(tmp_path)))
    captions = {entry.name: entry.example.captions for entry in entries}
    assert captions == {"flag.png": ("three stripes", "a flag"), "other.png": ()}
