"""Decoded samples of a PyTorch dataset, in one cache of all workers of its `DataLoader`.

::

    dataset = vrange.integrations.torch.cached(ImageFolder("train", decode), transform=augment)
    loader = DataLoader(dataset, num_workers=4, persistent_workers=True)

It does not import torch: samples may be of anything that can be pickled.
"""

from __future__ import annotations

import operator
import sys
import uuid
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from vrange import CacheInfo, VolatileCache

__all__ = ["CachedDataset", "cached"]


def cached(
    dataset: Any,
    name: str | None = None,
    *,
    transform: Callable[[Any], Any] | None = None,
    max_bytes: int | str | None = None,
    max_entries: int | None = None,
) -> CachedDataset:
    """Return a dataset with the same samples, each of which is decoded once while memory is spare.

    Parameters
    ----------
    dataset : map-style dataset
        It has `__getitem__` and `__len__`, and returns the same sample for an index each time. What
        is random belongs into `transform`.
    name : str, optional
        The name of the samples: datasets of one name share them, in all processes of a service,
        such as the ranks of one machine. It must say which data they are, and how they are decoded.
        By default the dataset has them for itself, with all workers of its loaders.
    transform : callable, optional
        Called with each sample, also with one that was cached, as for random augmentation.
    max_bytes, max_entries
        As for VolatileCache, for each process.

    Returns
    -------
    CachedDataset
        The dataset. Attributes that it does not have are those of `dataset`.

    Raises
    ------
    TypeError
        If `dataset` has no `__getitem__`, as an IterableDataset.

    Notes
    -----
    Each access gets a sample of its own, which it may change. Samples are in the memory of the
    workers that decoded them, so use `persistent_workers=True`: without it, the loader ends its
    workers after each epoch.

    Examples
    --------
    >>> squares = cached([n * n for n in range(10)])
    >>> squares[3], squares[3], squares.cache_info().hits
    (9, 9, 1)

    """
    if not hasattr(type(dataset), "__getitem__") or not hasattr(type(dataset), "__len__"):
        raise TypeError(
            f"cached takes a map-style dataset, with __getitem__ and __len__, not {dataset!r}: "
            "the samples of an iterable one have no index by which they could be found"
        )
    options = {"max_bytes": max_bytes, "max_entries": max_entries}
    return CachedDataset(dataset, name or f"dataset-{uuid.uuid4().hex}", transform, options)


class CachedDataset:
    """A map-style dataset whose samples are cached. `cached` returns it."""

    def __init__(
        self,
        dataset: Any,
        name: str,
        transform: Callable[[Any], Any] | None,
        options: dict[str, Any],
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self._made = name, options
        self._cache = self._new_cache()

    def _new_cache(self) -> VolatileCache[Hashable, Any]:
        name, options = self._made
        # A hot front would hold samples that are next read in the next epoch.
        return VolatileCache(shared=name, copy=True, hot_bytes=0, **options)

    def __getitem__(self, index: Any) -> Any:
        try:
            key: Hashable = operator.index(index)  # samplers may give tensors
        except TypeError:
            key = index
        stored = self._cache.get_or_compute(key, lambda: _without_tensors(self.dataset[index]))
        sample = _with_tensors(stored)
        return sample if self.transform is None else self.transform(sample)

    def __getitems__(self, indices: Iterable[Any]) -> list[Any]:
        """Return several samples: PyTorch calls it if a dataset has it."""
        return [self[index] for index in indices]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def cache_info(self) -> CacheInfo:
        """Return the figures of this process."""
        return self._cache.info()

    def cache_clear(self) -> None:
        """Remove all samples, in all processes."""
        self._cache.clear()

    # A worker that is started anew finds the samples by their name.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = self._new_cache()

    def __repr__(self) -> str:
        return f"<CachedDataset of {self.dataset!r}>"


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Stands for a tensor: an array is stored and copied faster than what torch pickles."""

    array: Any


def _without_tensors(sample: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None:
        return sample

    def stored(value: Any) -> Any:
        if type(value) is not torch.Tensor or value.requires_grad or value.is_conj():
            return value
        try:
            return _Tensor(value.numpy())
        except (TypeError, RuntimeError):  # sparse, or of a type that NumPy does not have
            return value

    return _mapped(stored, sample)


def _with_tensors(stored: Any) -> Any:
    def sample(value: Any) -> Any:
        if type(value) is not _Tensor:
            return value
        import torch

        return torch.from_numpy(value.array)

    return _mapped(sample, stored)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a tuple, list or dict with its items changed, at any depth; `change` of all else."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([_mapped(change, item) for item in value])
    if kind is dict:
        return {key: _mapped(change, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return kind._make([_mapped(change, item) for item in value])  # a namedtuple
    return change(value)
