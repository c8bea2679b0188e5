"""Neurons with two sides: which neuron of the model a unit of the tables is, and which side of it."""

from typing import NamedTuple

from nejax.errors import UserError

POSITIVE, NEGATIVE = "positive", "negative"
"""The sides: of the neuron's activation, and of its activation times -1."""


class Units(NamedTuple):
    """The units of a layer: its neurons, or, if they are gated, first all positive sides, then all negative ones."""

    n: int
    """In a layer: the `d_mlp` of an atlas."""
    sides: int
    """Of a neuron: 1 or 2."""

    @property
    def n_neurons(self) -> int:
        """In a layer of the model."""
        return self.n // self.sides

    def number(self, unit: int) -> int:
        """Index of its neuron in the layer of the model."""
        return unit % self.n_neurons

    def side(self, unit: int) -> str:
        """Which side of its neuron it is: "positive", "negative", or "" where neurons have one side."""
        return "" if self.sides == 1 else (POSITIVE, NEGATIVE)[unit // self.n_neurons]

    def other(self, unit: int) -> int:
        """The other side of its neuron.

        Raises:
            UserError: neurons have one side.
        """
        if self.sides == 1:
            raise UserError("the neurons of this atlas have one side each: there is no other side")
        return (unit + self.n_neurons) % self.n

    def unit(self, index: int, side: str) -> int:
        """The unit of an index and a side.

        Args:
            index: of the neuron in its layer; or of a negative side's unit, whatever `side` is.
            side: "positive" or "negative".

        Raises:
            UserError: there is no such side, or no such neuron.
        """
        if side not in (POSITIVE, NEGATIVE):
            raise UserError(f"side={side!r}: expected {POSITIVE!r} or {NEGATIVE!r}")
        if side == NEGATIVE and self.sides == 1:
            raise UserError(f"side={side!r}: the neurons of this atlas have one side each; leave it out")
        if not 0 <= index < self.n:
            units = f" (units {self.n_neurons} to {self.n - 1} are their negative sides)" if self.sides == 2 else ""
            raise UserError(f"there is no neuron {index} in this atlas; expected 0 to {self.n_neurons - 1}{units}")
        return self.other(index) if side == NEGATIVE and index < self.n_neurons else index


def neuron_name(layer: int, number: int, side: str) -> str:
    """ "layer 3, neuron 17", or "layer 3, neuron 17, negative side"."""
    return f"layer {layer}, neuron {number}" + (f", {side} side" if side else "")


def capitalized(name: str) -> str:
    """A name at the beginning of a line."""
    return name[:1].upper() + name[1:]
