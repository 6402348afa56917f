"""Films of every format."""

import shutil

import pytest
from PIL import Image

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.vqgan_clip.film import save_film


def test_films_contain_every_frame(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (16, 16), (20 * i, 0, 255 - 20 * i)) for i in range(5)]
    for ending in (".webp", ".gif"):
        save_film(frames, tmp_path / f"film{ending}")
        with Image.open(tmp_path / f"film{ending}") as film:
            assert film.n_frames == 5
    with pytest.raises(ConfigError, match="not a film format"):
        save_film(frames, tmp_path / "film.avi")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="ffmpeg is not installed"):
        save_film(frames, tmp_path / "film.mp4")
