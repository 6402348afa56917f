"""The collection `cifar10`: 60,000 labeled photographs of 32×32 pixels, as Parquet from the Hub."""

from pathlib import Path

from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.collections.loading import quiet_datasets, root_cause

HUB_NAME = "uoft-cs/cifar10"


def fetch_cifar10(out: Path) -> int:
    """Write train-….parquet and test-….parquet to `out` and return the number of images."""
    import datasets

    with quiet_datasets():
        try:
            splits = datasets.load_dataset(HUB_NAME)
        except Exception as error:
            raise DataError(
                f"{HUB_NAME}: could not be loaded from the Hub ({root_cause(error)}); it needs the "
                "network once"
            ) from error
        for split in ("train", "test"):
            splits[split].to_parquet(str(out / f"{split}-00000-of-00001.parquet"))
    return sum(len(splits[split]) for split in ("train", "test"))
