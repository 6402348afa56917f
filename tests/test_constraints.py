"""constraints.txt pins every direct dependency once on each supported Python."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info < (3, 11):
    pytest.skip("reading pyproject.toml needs Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).resolve().parent.parent
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALLED = ("evaluation", "http", "docs", "dev")
"""The extras that `make install` installs."""


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_dependency_has_one_pin_that_it_allows(version):
    here = {"python_version": version, "python_full_version": f"{version}.0"}
    pins = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(here):
            assert canonicalize_name(pin.name) not in pins, pin
            pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    extras = [text for name in INSTALLED for text in PROJECT["optional-dependencies"][name]]
    for wanted in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if wanted.name != PROJECT["name"]:
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted
