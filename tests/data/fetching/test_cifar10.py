"""CIFAR-10 lies where the shipped configurations look for it, or is missed in one line."""

import datasets
import pytest
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.sources import open_source
from dalle_mini_impl.experiment import load_experiment


def split(count: int) -> datasets.Dataset:
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["airplane", "cat"])}
    )
    rows = {"img": [Image.new("RGB", (32, 32), "red")] * count, "label": [1] * count}
    return datasets.Dataset.from_dict(rows, features=features)


def test_the_configurations_find_what_is_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []
    hub = datasets.DatasetDict(train=split(3), test=split(2))
    with monkeypatch.context() as patched:
        patched.setattr(datasets, "load_dataset", lambda name: asked.append(name) or hub)
        assert main(["fetch-data", "cifar10"]) == 0
    assert asked == ["uoft-cs/cifar10"]
    assert "5 images in data/cifar10" in capsys.readouterr().out
    for name in ("cifar10", "cifar10-clip"):
        data = load_experiment(name).data
        assert len(list(open_source(data, "train").rows())) == 3
        (first, _) = open_source(data, "validation").rows()
        assert "a photo of a cat" in first.captions


def test_a_missing_network_is_one_line(tmp_path, monkeypatch, capsys):
    def offline(name):
        raise ConnectionError("Couldn't reach the Hub\nmore")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert main(["fetch-data", "cifar10"]) == 2
    message = capsys.readouterr().err
    assert "uoft-cs/cifar10: could not be loaded from the Hub (Couldn't reach the Hub)" in message
    assert message.count("\n") == 1
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("name", ["emoji", "cifar10", "cifar10-clip"])
def test_data_that_is_not_there_yet_names_its_command(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = name.removesuffix("-clip")
    with pytest.raises(DataError, match=rf"data/{made}.*make it with `dalle fetch-data {made}`"):
        open_source(load_experiment(name).data, "train")
