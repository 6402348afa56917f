"""The guides name files, sections and modules that exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CODE = re.compile(r"`([\w./-]+\.py)`|`((?:data|models|training|sampling|evaluation)/[\w/]+)`")
IMPORT = re.compile(r"from (dalle_mini_impl[\w.]*) import ([\w, ]+)")


def anchors(page):
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    for file, module in CODE.findall(text):
        if "NAME" in file:
            continue
        name = file or f"{module}.py"
        places = (ROOT / name, ROOT / "dalle_mini_impl" / name)
        folder = ROOT / "dalle_mini_impl" / module
        assert any(p.exists() for p in places) or (module and folder.is_dir()), name
    for module, names in IMPORT.findall(text):
        imported = importlib.import_module(module)
        assert Path(imported.__file__).is_relative_to(ROOT), module
        for name in names.split(","):
            assert hasattr(imported, name.strip()), f"{module}.{name}"
