"""What a stage is: a value that says what it needs, when it is wanted, and how to get its result.

`STAGE.of(run)` is the result of a stage for a run: read if it is there, else computed, stored and marked as done. What
all stages do is done here, once: what a stage needs is finished before its clock starts, a folder of checkpoints goes
when the result is safe, and a store that is damaged is rebuilt.
"""

import abc
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from nejax.pipeline.run.processes import is_first
from nejax.pipeline.run.results import from_store, to_store
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.run import Run

Result = TypeVar("Result", bound=tuple)
"""A NamedTuple of arrays, see `nejax.pipeline.run.results`."""

Facts = Mapping[str, Any]
"""What the manifest says of a stage, as JSON values: counts, what was left out and why."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AnyStage(abc.ABC):
    """What all stages have."""

    name: str
    """In the manifest, and of the folder."""
    needs: tuple["AnyStage", ...] = ()
    """Stages that are finished before this one begins."""
    is_wanted: Callable[[Settings], bool] = lambda settings: True
    """Whether an atlas has it."""
    refuse: Callable[[Run], object] = lambda run: None
    """Raises a UserError for what would fail only after all that is needed was done."""

    @abc.abstractmethod
    def finish(self, run: Run) -> None:
        """Do what is not done.

        Raises:
            UserError: the corpus or the model is not what the run's earlier stages read; or what the stage raises.
        """

    def _begin(self, run: Run) -> None:
        self.refuse(run)
        for stage in self.needs:
            stage.finish(run)

    def _forget_checkpoints(self, run: Run) -> None:
        if is_first():  # only now is the result safe
            shutil.rmtree(run.partial(self.name), ignore_errors=True)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage(AnyStage, Generic[Result]):
    """A stage with one store."""

    result: type[Result]
    work: Callable[[Run], tuple[Result, Facts]]
    """Computes the result, and facts about it for the manifest."""

    def of(self, run: Run) -> Result:
        """The result."""
        return run.mending(lambda: self._of(run))

    def if_wanted(self, run: Run) -> Result | None:
        """The result, if the settings ask for it."""
        return self.of(run) if self.is_wanted(run.settings) else None

    def finish(self, run: Run) -> None:
        """Do what is not done."""
        run.mending(lambda: run.is_done(self.name) or self._of(run))

    def _of(self, run: Run) -> Result:
        if run.is_done(self.name):
            return from_store(self.result, run.directory.load(self.name))
        self._begin(run)
        started = time.monotonic()
        result, facts = self.work(run)
        run.directory.save(self.name, to_store(result), {**facts, "seconds": round(time.monotonic() - started, 2)})
        self._forget_checkpoints(run)
        return result


class Layers(Sequence[Result]):
    """The result of every layer, read when it is asked for."""

    def __init__(self, n_layers: int, read: Callable[[int], Result]):
        self._n_layers, self._read = n_layers, read

    def __len__(self) -> int:
        return self._n_layers

    @overload
    def __getitem__(self, layer: int) -> Result: ...
    @overload
    def __getitem__(self, layer: slice) -> "Layers[Result]": ...
    def __getitem__(self, layer: int | slice) -> "Result | Layers[Result]":
        """A layer's result; of a slice, again some that are read when they are asked for."""
        numbers = range(self._n_layers)[layer]
        if isinstance(numbers, range):
            return Layers(len(numbers), lambda i: self._read(numbers[i]))
        return self._read(numbers)

    def __iter__(self) -> Iterator[Result]:
        return map(self._read, range(self._n_layers))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerStage(AnyStage, Generic[Result]):
    """A stage with a store for each layer, `NAME-LL`."""

    result: type[Result]
    n_layers: Callable[[Run], int]
    """How many there are, once what is needed is done."""
    prepare: Callable[[Run], Callable[[int], tuple[Result, Facts]]]
    """Reads what all layers need, once; gives a function that computes a layer's result, and facts about it."""

    def of(self, run: Run) -> Layers[Result]:
        """The results of all layers, read when they are asked for."""
        self.finish(run)
        return Layers(self.n_layers(run), lambda layer: run.mending(lambda: self._layer(run, layer)))

    def finish(self, run: Run) -> None:
        """Do the layers that are not done."""
        run.mending(lambda: self._finish(run))

    def _layer(self, run: Run, layer: int) -> Result:
        if not run.is_done(layer_store(self.name, layer)):
            self._finish(run)
        return from_store(self.result, run.directory.load(layer_store(self.name, layer)))

    def _finish(self, run: Run) -> None:
        for stage in self.needs:
            stage.finish(run)
        names = [layer_store(self.name, layer) for layer in range(self.n_layers(run))]
        if all(map(run.is_done, names)):
            return
        self._begin(run)
        work = self.prepare(run)
        with run.bar(self.name, lambda: len(names), "layers") as advance:
            for layer, name in enumerate(names):
                if not run.is_done(name):
                    started = time.monotonic()
                    result, facts = work(layer)
                    seconds = round(time.monotonic() - started, 2)
                    run.directory.save(name, to_store(result), {**facts, "seconds": seconds})
                advance(1)


def layer_store(stage: str, layer: int) -> str:
    """The name of a layer's own store of a stage."""
    return f"{stage}-{layer:02d}"
