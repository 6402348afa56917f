"""Every shape annotation of the package is checked while the tests run."""

from jaxtyping import install_import_hook

hook = install_import_hook("dalle_mini_impl", "beartype.beartype")
hook.__enter__()
