"""The guides name files, sections and modules that exist."""

import ast
import importlib
import re
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from dalle_mini_impl.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CODE = re.compile(r"`([\w./-]+\.py)`|`((?:data|models|training|sampling|evaluation)/[\w/]+)`")
COMMAND = re.compile(
    rf"(?:dalle (?={'|'.join(COMMANDS)})|python (?=(?:train|sample)\.py))([^`\n]+)"
)
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


@cache
def help_of(arguments):
    """The text of `dalle ARGUMENTS --help`."""
    out = StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        main([*arguments, "--help"])
    return out.getvalue().replace("_", "-")


def commands(text):
    """Commands with their options, shell variables and broken lines put together."""
    text = text.replace("\\\n", " ")
    for name, value in re.findall(r'^([A-Z]+)="([^"\n]*)"$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    for command in COMMAND.findall(text):
        words = command.split()
        options = [word.split("=")[0].strip("[]") for word in words if word.lstrip("[")[:2] == "--"]
        arguments = [words[0].removesuffix(".py")]
        if arguments[0] in ("train", "plan"):
            config = re.search(r"configs/[\w-]+\.yaml", command)
            arguments.append(config[0] if config else "configs/shapes.yaml")
            # What decides which settings there are.
            kinds = r"--image-tokenizer\.(?:preset|\w+\.type|quantizer\.\w+)(?: \w+)+"
            arguments += [word for kind in re.findall(kinds, command) for word in kind.split()]
        if arguments[0] == "data":
            arguments.append("check")
        yield tuple(arguments), options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_commands_exist(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(ROOT)
    unknown = set()
    for arguments, options in commands(page.read_text(encoding="utf-8")):
        for option in {option.replace("_", "-") for option in options} - {"--help"}:
            plain = option.replace(".no-", ".")
            if not re.search(rf"{re.escape(plain)}(?![\w-])", help_of(arguments)):
                unknown.add(f"{arguments[0]} {option}")
    assert unknown == set()


def test_troubleshooting_quotes_messages_of_the_program():
    texts = [
        node.value
        for file in (ROOT / "dalle_mini_impl").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    symptoms = re.findall(r"^\| `([^|]+)` \|", page, re.MULTILINE)
    # The message names config.yaml by a variable.
    pieces = [p.strip() for s in symptoms for p in s.replace("config.yaml", "…").split("…")]
    assert len(symptoms) > 20
    assert [piece for piece in pieces if not any(piece in text for text in texts)] == []
