"""Adds configs/ and tokenizers/, which lie beside the package, to what is built from it."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithShippedFiles(build_py):
    """Copies the folders into the built package; an editable install reads them in place."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("configs", "tokenizers"):
                target = Path(self.build_lib) / "dalle_mini_impl" / folder
                copytree(folder, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedFiles})
