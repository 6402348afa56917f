"""Asks the Hub in seconds whether it has a data set; its own libraries retry for minutes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dalle_mini_impl.data.messages import root_cause

SECONDS = 6.0
"""How long the Hub has to answer."""


def missing_on_hub(name: str) -> str | None:
    """Why there is no such data set; None if there is one. ConnectionError without an answer."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set")
    answers: list[BaseException | None] = []

    def ask() -> None:
        from huggingface_hub import HfApi

        try:
            HfApi().dataset_info(name, timeout=SECONDS)
            answers.append(None)
        except Exception as error:  # Every version of huggingface_hub has its own kinds.
            answers.append(error)

    # A thread, because looking up a host may take longer than any timeout of a request.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not answers:
        raise ConnectionError(f"the Hub did not answer in {SECONDS:.0f} s")
    error = answers[0]
    if error is None:
        return None
    if type(error).__name__ in ("RepositoryNotFoundError", "HFValidationError"):
        return "the Hub has no such data set, or it is private"
    raise ConnectionError(f"the Hub cannot be reached ({root_cause(error)})") from error


@contextmanager
def only_cached() -> Iterator[None]:
    """Inside, `datasets` reads what it has downloaded before and asks nobody."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
