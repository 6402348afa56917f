"""Opens one split of whatever collection the configuration names."""

from dalle_mini_impl.data.collections.tables import TableSource
from dalle_mini_impl.data.config import SYNTHETIC, DataConfig
from dalle_mini_impl.data.examples import Source
from dalle_mini_impl.data.splits import Split
from dalle_mini_impl.data.synthetic.source import SyntheticSource


def open_source(config: DataConfig, split: Split) -> Source:
    """One split of the configured collection.

    Raises DataError where the path or its columns cannot be understood.
    """
    if config.path in SYNTHETIC:
        return SyntheticSource(config, split)
    return TableSource(config, split)
