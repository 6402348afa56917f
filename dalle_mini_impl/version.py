"""The version of the installed package."""

from importlib import metadata


def package_version() -> str:
    """The version, or "not installed" where the code runs from a bare checkout."""
    try:
        return metadata.version("dalle-mini-impl")
    except metadata.PackageNotFoundError:
        return "not installed"
