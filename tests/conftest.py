"""Every shape annotation of the package is checked while the tests run."""

import pytest
from jaxtyping import install_import_hook

hook = install_import_hook("dalle_mini_impl", "beartype.beartype")
hook.__enter__()


@pytest.fixture
def fast_kernels(monkeypatch):
    """Kernels choose for themselves, also where the whole suite runs with plain ones."""
    monkeypatch.delenv("DALLE_KERNELS", raising=False)


@pytest.fixture
def plain_kernels(monkeypatch):
    """Every kernel takes its plain function."""
    monkeypatch.setenv("DALLE_KERNELS", "plain")
