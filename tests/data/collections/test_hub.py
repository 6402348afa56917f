"""A Hub name that leads nowhere is refused in seconds, and what was downloaded is still used."""

import threading
import time

import datasets
import huggingface_hub
import pytest

from dalle_mini_impl.data.collections import hub
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.collections.loading import open_hub
from dalle_mini_impl.data.config import DataConfig


class RepositoryNotFoundError(Exception):
    """Named like huggingface_hub's."""


@pytest.fixture
def loads(monkeypatch):
    """Whether `datasets` was offline at each call of its `load_dataset`."""
    calls = []

    def load_dataset(name, subset, streaming):
        calls.append(datasets.config.HF_HUB_OFFLINE)
        raise ValueError("nothing cached")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "SECONDS", 0.2)
    return calls


def hub_that(monkeypatch, dataset_info):
    api = type("HfApi", (), {"dataset_info": staticmethod(dataset_info)})
    monkeypatch.setattr(huggingface_hub, "HfApi", api)


def test_a_name_that_the_hub_does_not_know_is_not_asked_for_again(loads, monkeypatch):
    def unknown(name, timeout):
        raise RepositoryNotFoundError("401")

    hub_that(monkeypatch, unknown)
    with pytest.raises(DataError, match=r"'nobody/nothing' is no file .* no such data set"):
        open_hub(DataConfig(), "nobody/nothing", False)
    assert loads == []


def test_a_hub_that_does_not_answer_is_not_waited_for(loads, monkeypatch):
    hub_that(monkeypatch, lambda name, timeout: threading.Event().wait(20))
    started = time.monotonic()
    with pytest.raises(DataError, match=r"did not answer in .* not downloaded before"):
        open_hub(DataConfig(), "nobody/nothing", False)
    assert time.monotonic() - started < 10
    assert loads == [True]
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_a_network_the_cause_is_told(loads, monkeypatch):
    def unreachable(name, timeout):
        raise OSError("Name or service not known")

    hub_that(monkeypatch, unreachable)
    with pytest.raises(DataError, match=r"cannot be reached \(Name or service not known\)"):
        open_hub(DataConfig(), "nobody/nothing", False)


def test_a_data_set_that_is_there_is_loaded(loads, monkeypatch):
    hub_that(monkeypatch, lambda name, timeout: None)
    with pytest.raises(DataError, match="nothing cached"):
        open_hub(DataConfig(), "owner/name:subset", False)
    assert loads == [False]
