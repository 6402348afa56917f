"""Packages of compiled steps: what names them, and what may be run."""

import os
from typing import ClassVar

import pytest
import torch

from dalle_mini_impl.sampling.compiled import cache
from dalle_mini_impl.sampling.compiled import packages as packages_module
from dalle_mini_impl.sampling.compiled.cache import digest_file, forget_oldest, is_own
from dalle_mini_impl.sampling.compiled.packages import StepPackages
from tests.sampling.test_sampler import build


def test_a_compiled_step_is_known_by_what_it_was_made_of(monkeypatch):
    monkeypatch.setattr(packages_module, "source_digest", lambda: "source")

    def path(model, key="key"):
        return StepPackages(model, lambda *_: None, lambda _: []).path(key)

    model, first = build(), path(build())
    assert path(model) == first
    assert path(model, "another") != first
    paper = {"block": "dalle", "attention": "full"}
    assert path(build(**paper)) != path(build(**paper, heads=4))  # of the same weights
    with monkeypatch.context() as other:
        other.setenv("ONEDNN_MAX_CPU_ISA", "another")
        assert path(model) != first
    with monkeypatch.context() as other:
        other.setattr(packages_module, "source_digest", lambda: "another")
        assert path(model) != first
    assert path(model) == first
    model.blocks[0].attention.out.weight[0, 0] += 1e-6
    assert path(model) != first


def test_source_that_changed_under_a_process_names_no_package(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    source = tmp_path / "code.py"
    source.write_text("old = 1")
    os.utime(source, (0, 0))
    before = cache.source_digest()
    assert cache.source_digest() == before
    source.write_text("new = 2")
    os.utime(source, (0, 0))
    assert cache.source_digest() != before
    os.utime(source)
    assert cache.source_digest() != cache.source_digest()


@pytest.mark.parametrize("digest", [None, "of another content"])
def test_a_damaged_package_is_replaced(tmp_path, monkeypatch, digest):
    monkeypatch.setattr(Made, "windows", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(StepPackages, "_compile", lambda *_: Made())
    packages = StepPackages(build(), lambda *_: None, lambda _: [])
    path = packages.path("key")
    path.parent.mkdir(mode=0o700, parents=True)
    path.write_bytes(b"half a file")
    path.chmod(0o600)
    if digest is not None:
        digest_file(path).write_text(digest)
        monkeypatch.setattr(packages_module, "load", lambda path: pytest.fail("it was loaded"))
    with pytest.warns(UserWarning, match=f"{path.name} cannot be loaded"):
        step = packages.bind("key", torch.zeros(1), torch.arange(5))
    for cached in range(2, 6):
        step(torch.arange(cached))
    assert Made.windows == [3, 3, 4, 5]


class Made:
    """Stands for a compiled step and notes the windows that it is given."""

    windows: ClassVar[list[int]] = []

    def __init__(self):
        self.loader = self

    def run(self, tensors):
        self.windows.append(len(tensors[0]))


def test_what_others_may_have_written_is_not_run(tmp_path):
    path = tmp_path / "steps" / "step.pt2"
    path.parent.mkdir(mode=0o700)
    assert not is_own(path)
    path.touch(mode=0o600)
    assert is_own(path)
    for place in (path, path.parent):
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        assert not is_own(path)
        place.chmod(mode)


def test_of_compiled_steps_those_used_last_are_kept(tmp_path):
    for age, name in enumerate(("newest", "second", "third", "oldest")):
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    forget_oldest(tmp_path, 250)
    assert {path.stem for path in tmp_path.iterdir()} == {"newest", "second"}
    forget_oldest(tmp_path, 50)
    assert {path.stem for path in tmp_path.iterdir()} == {"newest"}
