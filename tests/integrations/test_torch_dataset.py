"""Datasets whose samples are cached, in processes as a DataLoader starts them.

scripts/test-torch runs the real one.
"""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from shared_peers import reads_large_values

from vrange.integrations.torch import CachedDataset, cached


class Sample(NamedTuple):
    image: Any
    label: int


class Images:
    """Notes in a file what it decodes."""

    classes = ("even", "odd")

    def __init__(self, log: Path) -> None:
        self.log = log

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self):
            raise IndexError(index)
        with self.log.open("a") as log:
            log.write(f"{index}\n")
        return Sample(np.full((64, 64, 3), index, "u1"), index % 2)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        raise AssertionError("this would not be cached")

    @property
    def decoded(self) -> list[int]:
        return sorted(map(int, self.log.read_text().split())) if self.log.exists() else []


class OfWorker:
    """As torch's workers: each has the dataset, and gets indices."""

    dataset: CachedDataset

    @classmethod
    def begin(cls, dataset: CachedDataset) -> None:
        cls.dataset = dataset

    @classmethod
    def batch(cls, indices: list[int]) -> list[tuple[int, int, bool]]:
        samples = cls.dataset.__getitems__(indices)
        for sample in samples:
            sample.image[0] += 1  # it is its own
        return [(int(s.image[-1, 0, 0]), s.label, type(s) is Sample) for s in samples]


@reads_large_values
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_decode_each_sample_once(tmp_path: Path, method: str) -> None:
    images = Images(tmp_path / "log")
    dataset = cached(images)
    with ProcessPoolExecutor(
        2, get_context(method), initializer=OfWorker.begin, initargs=(dataset,)
    ) as pool:
        for epoch in range(3):
            batches = [[0, 1], [2, 3], [4, 5], [6, 7]][:: -1 if epoch % 2 else 1]
            for indices, got in zip(batches, pool.map(OfWorker.batch, batches), strict=True):
                assert got == [(n, n % 2, True) for n in indices]
        assert images.decoded == [*range(8)]
        # The process that made the dataset reads what its workers decoded.
        assert dataset[5].label == 1
        assert images.decoded == [*range(8)]


def test_a_sample_may_be_changed(tmp_path: Path) -> None:
    dataset = cached(Images(tmp_path / "log"))
    for _ in range(3):
        image = dataset[2].image
        assert (image == 2).all()
        image += 1


def test_what_is_random_runs_at_each_access(tmp_path: Path) -> None:
    images, calls = Images(tmp_path / "log"), []

    def transform(sample: Sample) -> int:
        calls.append(sample.label)
        return len(calls)

    dataset = cached(images, transform=transform)
    assert [dataset[1], dataset[1], dataset[1]] == [1, 2, 3]
    assert images.decoded == [1]


@reads_large_values
def test_it_stands_for_the_dataset(tmp_path: Path) -> None:
    dataset = cached(Images(tmp_path / "log"), max_bytes="1GiB")
    assert len(dataset) == 8
    assert dataset.classes == ("even", "odd")
    assert [sample.label for sample in map(dataset.__getitem__, range(8))] == [0, 1] * 4
    with pytest.raises(IndexError):
        dataset[8]
    with pytest.raises(AttributeError, match="nothing"):
        _ = dataset.nothing
    again = pickle.loads(pickle.dumps(dataset))
    assert again[3].label == 1
    assert dataset[np.int64(3)].label == 1
    assert dataset.dataset.decoded == [*range(8)]
    dataset.cache_clear()
    assert again[3].label == 1
    assert len(again.dataset.decoded) == 9


@reads_large_values
def test_datasets_share_samples_by_name_only(tmp_path: Path) -> None:
    first, second = Images(tmp_path / "first"), Images(tmp_path / "second")
    assert cached(first)[1].label == cached(second)[1].label == 1
    assert (first.decoded, second.decoded) == ([1], [1])
    name = f"images-{os.getpid()}"
    one, other = cached(first, name), cached(second, name)
    assert one[2].label == other[2].label == 0
    assert (first.decoded, second.decoded) == ([1, 2], [1])


def test_an_iterable_dataset_is_refused() -> None:
    with pytest.raises(TypeError, match="map-style dataset"):
        cached(iter([1, 2]))
