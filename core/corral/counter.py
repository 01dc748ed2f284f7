"""`PluginCounter`: what a plugin counts in a worker, for `/metrics`.

Numbers that only grow, by one label whose values are known beforehand, so that nothing that a job
carries can become a series. It does not know prometheus_client, which is an extra.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType

__all__ = ["PluginCounter"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*_total")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


class PluginCounter:
    """Counts by the values of one label. `Deps.counter` makes it; any thread may add to it.

    Attributes:
        name: The metric's name; it ends with `_total`.
        text: What is counted.
        label: The name of the label.

    Args:
        name: The metric's name.
        text: What is counted, one sentence.
        label: The name of the label.
        values: All values that the label can have.

    Raises:
        ValueError: A name cannot be one of a metric or of a label, or there are no values.
    """

    def __init__(self, name: str, text: str, label: str, values: tuple[str, ...]) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"counter {name!r} is not named like acme_letters_refused_total")
        if not _LABEL.fullmatch(label):
            raise ValueError(f"label {label!r} of counter {name!r} is not made of a-z 0-9 _")
        if not values:
            raise ValueError(f"counter {name!r} has no values of its label {label!r}")
        self.name = name
        self.text = text
        self.label = label
        self._counts = dict.fromkeys(values, 0)
        self._lock = Lock()

    @property
    def counts(self) -> Mapping[str, int]:
        """What was counted until now, by the label's value."""
        return MappingProxyType(self._counts)

    def add(self, value: str, number: int = 1) -> None:
        """Count.

        Args:
            value: The label's value.
            number: How many; not negative.

        Raises:
            ValueError: The label does not have this value, or the number is negative.
        """
        if value not in self._counts:
            raise ValueError(f"{value!r} is no value of {self.label!r} of counter {self.name!r}")
        if number < 0:
            raise ValueError(f"counter {self.name!r} does not count {number}")
        with self._lock:
            self._counts[value] += number

    def counts_the_same_as(self, other: PluginCounter) -> bool:
        """Whether another counter has the same name, text, label and values."""
        return (self.name, self.text, self.label, self._counts.keys()) == (
            other.name,
            other.text,
            other.label,
            other.counts.keys(),
        )
