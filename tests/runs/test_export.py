"""An exported run samples what the run samples, and a zip from a stranger harms nobody."""

import shutil
import struct
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.archive import MAX_SMALL, MEMBERS
from dalle_mini_impl.runs.export import export
from dalle_mini_impl.runs.named import find_run, pretrained_names
from dalle_mini_impl.runs.weights import RunError
from dalle_mini_impl.shipped import folders
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with what training leaves beside the weights."""
    run = tiny_run(tmp_path_factory.mktemp("runs") / "tiny")
    (run.cache / "codes.npy").write_bytes(bytes(1000))
    (run.checkpoints("clip") / "tensors.pt").write_bytes(bytes(1000))
    run.log("clip", 2, loss=1.0)
    return run


@pytest.fixture(scope="module")
def archive(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "tiny.zip"
    export(run, out, torch.float32, {"README.md": b"# tiny"})
    return out


def codes(run) -> list[tuple[int, ...]]:
    model = TextToImage.from_pretrained(run, "cpu")
    return [result.codes for result in model("a red star", seed=3, num_images=4, candidates=4)]


@pytest.mark.parametrize("name", ["folder", "file.zip"])
def test_an_export_has_what_sampling_needs_and_nothing_else(run, tmp_path, name):
    out = tmp_path / "new" / name
    export(run, out, torch.float32, {"README.md": b"# tiny"})
    there = [f.name for f in out.iterdir()] if out.is_dir() else zipfile.ZipFile(out).namelist()
    weights = ("image_tokenizer.safetensors", "dalle.safetensors", "clip.safetensors")
    assert sorted(there) == sorted(("README.md", "captions.json", "config.yaml", *weights))
    assert codes(out) == codes(run)
    assert [file.name for file in out.parent.iterdir()] == [name]


def test_weights_are_stored_in_half_the_bytes_and_read_as_fp32(run, tmp_path):
    export(run, tmp_path / "half", torch.bfloat16, {})
    stored = load_file(tmp_path / "half" / "dalle.safetensors")
    whole = load_file(run.path / "dalle.safetensors")
    for name, value in whole.items():
        assert torch.equal(stored[name], value.to(torch.bfloat16)), name
    model = TextToImage.from_pretrained(tmp_path / "half", "cpu")
    assert {p.dtype for p in model.dalle.parameters()} == {torch.float32}
    assert len(codes(tmp_path / "half")) == 4


def test_an_export_is_refused_where_something_is_or_something_lacks(run, archive, tmp_path):
    with pytest.raises(RunError, match=r"tiny\.zip: exists already"):
        export(run, archive, torch.float32, {})
    part = tiny_run(tmp_path / "part", weights=("image_tokenizer",))
    with pytest.raises(RunError, match=r"dalle\.safetensors: no such weights"):
        export(part, tmp_path / "out", torch.float32, {})
    assert [file.name for file in tmp_path.iterdir()] == ["part"]


def test_an_unpacked_zip_disappears_with_its_run(archive):
    run = find_run(archive)
    folder = run.path
    assert (run.name, run.read_only) == (str(archive), True)
    assert folder.is_dir()
    del run
    assert not folder.exists()


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        ("../outside.txt", r"holds \.\./outside\.txt"),
        ("/tmp/outside.txt", r"holds /tmp/outside\.txt"),
        ("checkpoints/tensors.pt", r"holds checkpoints/tensors\.pt"),
        ("code.py", r"holds code\.py"),
        ("config.yaml", r"holds config\.yaml"),
    ],
)
def test_a_zip_with_other_files_is_refused(archive, tmp_path, member, complaint):
    hostile = tmp_path / "inside" / "hostile.zip"
    hostile.parent.mkdir()
    hostile.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(hostile, "a") as zipped, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the name that is there twice
        zipped.writestr(member, "x")
    with pytest.raises(RunError, match=complaint):
        find_run(hostile)
    assert [file.name for file in tmp_path.rglob("*")] == ["inside", "hostile.zip"]


def test_a_zip_that_would_fill_the_disk_is_refused(archive, tmp_path):
    for name in ("captions.json", "clip.safetensors"):
        hostile = tmp_path / f"{name}.zip"
        with (
            zipfile.ZipFile(archive) as good,
            zipfile.ZipFile(hostile, "w", zipfile.ZIP_DEFLATED) as bad,
        ):
            for member in good.namelist():
                bad.writestr(member, bytes(MAX_SMALL + 1) if member == name else good.read(member))
        with pytest.raises(RunError, match=rf"is too large in {name}"):
            find_run(hostile)


def test_a_zip_that_lies_about_its_sizes_is_refused(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as zipped:
        size = zipped.getinfo("captions.json").file_size
    at = content.rfind(b"captions.json") - 46 + 24  # the size in the central directory
    assert struct.unpack_from("<I", content, at) == (size,)
    struct.pack_into("<I", content, at, 10)
    (tmp_path / "liar.zip").write_bytes(content)
    with pytest.raises(RunError, match="not a readable zip"):
        find_run(tmp_path / "liar.zip")


def test_a_damaged_or_incomplete_zip_is_refused(archive, tmp_path):
    (tmp_path / "half.zip").write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"half\.zip: not a readable zip"):
        find_run(tmp_path / "half.zip")
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as zipped:
        zipped.writestr("config.yaml", "data: {}")
    with pytest.raises(RunError, match=r"it lacks captions\.json, image_tokenizer\.safetensors"):
        find_run(tmp_path / "part.zip")


@pytest.fixture
def package(run, archive, tmp_path, monkeypatch):
    """A package with two models, one as a folder and one as a zip."""
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "package")
    export(run, tmp_path / "package" / "pretrained" / "first", torch.bfloat16, {})
    (tmp_path / "package" / "pretrained" / "second.zip").write_bytes(archive.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "package"


def test_models_in_the_package_are_found_by_name(run, package):
    assert pretrained_names() == ["first", "second"]
    for name in ("first", "pretrained:first", "second", "pretrained:second"):
        found = find_run(name)
        assert found.name == f"pretrained:{name.removeprefix('pretrained:')}"
        assert found.read_only
        assert len(TextToImage.from_pretrained(name, "cpu")("a star", num_images=1)) == 1
    with pytest.raises(
        RunError, match=r"pretrained:third: no such model .*\(there: first, second\)"
    ):
        find_run("pretrained:third")
    shutil.copytree(run.path, "first")
    assert not find_run("first").read_only
    assert find_run("pretrained:first").read_only


def test_the_pretrained_models_are_small_and_have_cards():
    shipped = folders.shipped("pretrained")
    files = [file for file in shipped.rglob("*") if file.is_file()] if shipped.is_dir() else []
    assert sum(file.stat().st_size for file in files) < 12e6
    assert set(pretrained_names()) <= {"shapes", "emoji"}
    for name in pretrained_names():
        found = find_run(name)
        assert {file.name for file in found.path.iterdir()} <= MEMBERS
        assert "python -m benchmarks.pretrained" in (found.path / "README.md").read_text("utf-8")
        assert (
            len(TextToImage.from_pretrained(name, "cpu")("a star", num_images=1, candidates=1)) == 1
        )
