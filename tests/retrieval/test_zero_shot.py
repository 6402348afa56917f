"""Classification by prompts, and the adapters around other libraries' CLIPs."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from dalle_mini_impl.cli import classify
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.retrieval.encoder import JointEncoder, RunClip
from dalle_mini_impl.retrieval.pretrained import load_pretrained
from dalle_mini_impl.retrieval.zero_shot import ZeroShotClassifier, fill
from tests.color_run import COLORS, color_run, patch


class FixedVectors(JointEncoder):
    """Vectors given by hand: texts by name, images by the color of their first pixel."""

    def __init__(self, texts: dict[str, list[float]]):
        self.texts = texts
        self.key, self.image_size, self.logit_scale = "fixed", 4, 10.0
        self.device = torch.device("cpu")

    def embed_pixels(self, pixels):
        return torch.nn.functional.normalize(pixels[:, :, 0, 0], dim=-1)

    def embed_texts(self, texts):
        vectors = torch.tensor([self.texts[text] for text in texts], dtype=torch.float32)
        return torch.nn.functional.normalize(vectors, dim=-1)


def accuracy(run) -> float:
    classifier = ZeroShotClassifier(RunClip.from_run(run, "cpu"), list(COLORS))
    first = [row[0].label for row in classifier.classify([patch(name) for name in COLORS])]
    return sum(a == b for a, b in zip(first, COLORS, strict=True)) / len(COLORS)


def test_a_trained_clip_names_the_colors(run):
    assert accuracy(run) == 1


def test_a_clip_of_shuffled_captions_does_not_name_them(tmp_path):
    run = color_run(tmp_path / "shuffled", shuffled=True)
    assert accuracy(run) <= 0.5
    classifier = ZeroShotClassifier(RunClip.from_run(run, "cpu"), list(COLORS))
    assert classifier.probabilities([patch(name) for name in COLORS]).max() < 0.7


def test_templates_are_averaged_as_unit_vectors():
    clip = FixedVectors({"a x": [1, 0, 0], "x!": [0, 5, 0], "a y": [0, 0, 1], "y!": [0, 0, 2]})
    classifier = ZeroShotClassifier(clip, ["x", "y"], ["a {}", "{label}!"])
    half = 0.5**0.5
    torch.testing.assert_close(classifier.vectors, torch.tensor([[half, half, 0], [0, 0, 1]]))
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    expected = torch.tensor([[10 * half, 0.0]]).softmax(-1)
    torch.testing.assert_close(classifier.probabilities(red), expected)


def test_top_k_is_sorted_and_bounded(run):
    classifier = ZeroShotClassifier(RunClip.from_run(run, "cpu"), list(COLORS))
    (row,) = classifier.classify([patch("blue")], top=3)
    assert row[0].label == "blue"
    assert len(row) == 3
    assert [p.probability for p in row] == sorted((p.probability for p in row), reverse=True)
    (all_labels,) = classifier.classify([patch("blue")], top=99)
    assert sum(p.probability for p in all_labels) == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "templates", "complaint"),
    [
        (["cat"], ["a {}"], "two or more"),
        (["cat", "dog", "cat"], ["a {}"], "cat given more than once"),
        (["cat", "dog"], ["an image"], "no placeholder for the label"),
        (["cat", "dog"], [], "at least one"),
    ],
)
def test_labels_and_templates_that_cannot_work_are_refused(labels, templates, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ZeroShotClassifier(FixedVectors({}), labels, templates)


def test_other_braces_of_a_template_stay():
    assert fill("{a} {}", "cat") == "{a} cat"


def test_classify_prints_json_and_a_table(run, tmp_path, capsys):
    for name in ("red", "green"):
        patch(name).save(tmp_path / f"{name}.png")
    options = ["--labels", *COLORS, "--run", str(run.path), "--device", "cpu"]
    classify.main([str(tmp_path), *options, "--top", "2", "--json"])
    green, red = json.loads(capsys.readouterr().out)
    assert red["image"].endswith("red.png")
    assert max(red["labels"], key=red["labels"].get) == "red"
    assert max(green["labels"], key=green["labels"].get) == "green"
    assert len(red["labels"]) == 2
    classify.main([str(tmp_path / "red.png"), *options])
    assert "red" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no such file"):
        classify.main([str(tmp_path / "none.png"), *options])


@pytest.mark.parametrize("library", ["transformers", "open_clip"])
def test_a_missing_library_names_the_extra(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=r"pip install transformers open_clip_torch"):
        load_pretrained(f"{library}:anything")


def test_a_name_without_a_library_is_refused():
    with pytest.raises(ConfigError, match="write transformers:NAME"):
        load_pretrained("ViT-B-32")


def test_transformers_models_are_read_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    text = {"vocab_size": 54, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config={**towers, **text, "pad_token_id": 1, "num_attention_heads": 2},
        vision_config={**towers, "image_size": 32, "patch_size": 8, "num_attention_heads": 2},
        projection_dim=16,
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    mean, deviation = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    numbers = json.dumps({"image_mean": mean, "image_std": deviation})
    (tmp_path / "preprocessor_config.json").write_text(numbers)
    letters = [chr(97 + i) + end for i in range(26) for end in ("", "</w>")]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters]
    (tmp_path / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    files = [str(tmp_path / name) for name in ("vocab.json", "merges.txt")]
    transformers.CLIPTokenizer(*files).save_pretrained(tmp_path)

    clip = load_pretrained(f"transformers:{tmp_path}")
    pixels = torch.rand(2, 3, 32, 32, requires_grad=True)
    seen = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    features = model.get_image_features(pixel_values=seen)
    features = getattr(features, "pooler_output", features)
    vectors = clip.embed_pixels(pixels)
    torch.testing.assert_close(vectors, torch.nn.functional.normalize(features, dim=-1))
    vectors[0, 0].backward()
    assert pixels.grad.abs().sum() > 0
    assert clip.encode_texts(["a heart", "longer " * 30]).norm(dim=-1).tolist() == pytest.approx(
        [1, 1]
    )


def test_open_clip_models_get_their_own_normalization(monkeypatch, tmp_path):
    class Visual:
        image_size, image_mean, image_std = (4, 4), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    class Model(torch.nn.Module):
        visual = Visual()
        logit_scale = torch.tensor(2.0)

        def encode_image(self, pixels):
            return pixels[:, :, 0, 0]

        def encode_text(self, ids):
            return ids.float()

    asked = []

    def create_model(architecture, pretrained, device):
        asked.append((architecture, pretrained))
        return Model()

    def get_tokenizer(architecture):
        return lambda texts: torch.tensor([[3, 0, 4]] * len(texts))

    library = SimpleNamespace(create_model=create_model, get_tokenizer=get_tokenizer)
    library.list_pretrained_tags_by_model = lambda architecture: ["a", "b"]
    monkeypatch.setitem(sys.modules, "open_clip", library)
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    clip = load_pretrained(f"open_clip:ViT-B-32:{weights}")
    assert asked == [("ViT-B-32", str(weights))]
    pixels = torch.tensor([0.5, 0.75, 0.5]).view(1, 3, 1, 1).expand(-1, -1, 8, 8)
    torch.testing.assert_close(clip.embed_pixels(pixels), torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(clip.encode_texts(["x"]), torch.tensor([[0.6, 0.0, 0.8]]))
    with pytest.raises(ConfigError, match="one of: a, b"):
        load_pretrained("open_clip:ViT-B-32")
