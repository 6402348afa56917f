"""Counts, and what an import error says."""

from dalle_mini_impl.data.messages import counted, import_problem


def test_counts_have_their_noun_in_its_number():
    assert [counted(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert counted(2, "process", "processes") == "2 processes"


def test_the_cause_behind_an_import_error_is_told():
    error = ModuleNotFoundError("Could not import module 'AutoModel'")
    error.__cause__ = OSError("libcudart.so.12: cannot open shared object file")
    assert "libcudart.so.12" in import_problem("transformers", error)
    missing = ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    assert import_problem("open_clip", missing) == "open_clip is not installed"
