"""The checks that every public function of arrays makes of its arguments: one rule for all of them."""

import inspect
import operator
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import AbstractArray, Array, ArrayLike, PRNGKeyArray, ScalarLike

from nejax.errors import UserError

Result = TypeVar("Result")

_MAY_BE_EMPTY = {"b", "k", "m"}
"""Axes of batches, of directions and of new inputs; every other has an entry at least."""


class _Array(NamedTuple):
    """What a parameter's annotation says of an array."""

    dims: tuple[str, ...]
    """The first may be `*name`, for any number of axes."""
    kinds: frozenset[str]
    """Of `float`, `int` and `bool`."""
    optional: bool


def array_function(function: Callable[..., Result] | None = None, *, spread: str = "") -> Callable[..., Any]:
    """Check the arguments of a function of arrays by its annotations, and let it run under any sharding.

    Anything that NumPy converts to an array is accepted, lists included. Where floats are expected, so are integers and
    booleans; labels must be integers, masks booleans. Axes of one name have one size. On a mesh with explicit axes,
    arrays of which a part is on each device are brought together first: one neuron's are small, and `vmap` leaves the
    axis of neurons spread. (Auto axes are XLA's own affair.)

    Args:
        function: jitted or not.
        spread: the name of an axis that stays spread over devices, in a function of a whole layer.

    Returns:
        The function with these checks before it; they raise `UserError`.
    """
    if function is None:
        return lambda function: array_function(function, spread=spread)
    signature = inspect.signature(function)
    readers = {name: _reader(name, parameter.annotation) for name, parameter in signature.parameters.items()}

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Result:
        bound = signature.bind(*args, **kwargs)
        sizes: Sizes = {}
        for name, value in bound.arguments.items():
            if (read := readers[name]) is not None:
                bound.arguments[name] = read(value, sizes, spread)
        return function(*bound.args, **bound.kwargs)

    return checked


Sizes = dict[str, tuple[Any, str]]
"""The size of each axis known so far (a tuple where a name stands for several), and the argument it is known from."""

Reader = Callable[[Any, Sizes, str], Any]


def _reader(name: str, annotation: Any) -> Reader | None:
    """How an argument is read; None if it is passed on unchanged."""
    for plain in (PRNGKeyArray, ScalarLike, ArrayLike):
        if annotation in (plain, plain | None):
            optional = annotation != plain
            if plain is PRNGKeyArray:
                return lambda value, sizes, spread: _key(name, value, optional=optional)
            return lambda value, sizes, spread: _numbers(name, value, one=plain is ScalarLike, optional=optional)
    if typing.get_origin(annotation) is typing.Literal:
        return lambda value, sizes, spread: _choice(name, value, typing.get_args(annotation))
    if int in (options := typing.get_args(annotation) or (annotation,)):
        return lambda value, sizes, spread: _whole(name, value, traced=_array(annotation) is not None, options=options)
    if (expected := _array(annotation)) is not None:
        return lambda value, sizes, spread: _read(name, value, expected, sizes, spread)
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        fields = {field: _array(hint) for field, hint in annotation.__annotations__.items()}
        return lambda value, sizes, spread: _tuple(name, value, annotation, fields, sizes, spread)
    return None


def _array(annotation: Any) -> _Array | None:
    options = typing.get_args(annotation) or (annotation,)
    arrays = [option for option in options if isinstance(option, type) and issubclass(option, AbstractArray)]
    if not arrays:
        return None
    names = {name.rstrip("0123456789") for option in arrays for name in option.dtypes}
    kinds = frozenset(kind for kind in ("float", "int", "bool") if kind in names)
    return _Array(tuple(arrays[0].dim_str.split()), kinds, type(None) in options)


def _read(name: str, value: Any, expected: _Array, sizes: Sizes, spread: str) -> Array | None:
    if value is None and expected.optional:
        return None
    array = as_array(name, value)
    has = "have" if name.endswith("s") else "has"
    kind = _kind(array)
    if kind in ("int", "bool") and expected.kinds == {"float"}:
        array = array.astype(jnp.result_type(float))
    elif kind not in expected.kinds:
        words = {"float": "numbers", "int": "integers", "bool": "booleans"}
        wanted = " or ".join(words[kind] for kind in ("float", "int", "bool") if kind in expected.kinds)
        raise UserError(f"{name} {has} dtype {array.dtype}; expected {wanted}")
    elif kind == "int" and array.dtype not in (jnp.int32, jnp.int64):
        array = array.astype(jnp.int32)
    _check_shape(f"{name} {has} shape {array.shape}", array.shape, expected.dims, sizes, name)
    stays = [dim == spread for dim in expected.dims if not dim.startswith("*")]
    return together(array, [True] * (array.ndim - len(stays)) + stays)


def _check_shape(said: str, shape: tuple[Any, ...], dims: tuple[str, ...], sizes: Sizes, name: str) -> None:
    wanted = f"[{', '.join(dims)}]"
    if dims and dims[0].startswith("*") and len(shape) >= len(dims) - 1:
        leading = len(shape) - len(dims) + 1
        shape = (shape[:leading], *shape[leading:])
    if len(shape) != len(dims):
        raise UserError(f"{said}; expected {wanted}: pass one neuron, or use jax.vmap")
    for dim, size in zip(dims, shape, strict=True):
        if not dim.removeprefix("*").isidentifier():
            continue
        if size == 0 and dim not in _MAY_BE_EMPTY:
            raise UserError(f"{said}; expected {wanted} with {dim} >= 1")
        known, by = sizes.setdefault(dim, (size, name))
        if size != known:
            why = f" with {dim} = {known}, as in {by}" if by != name else ""
            raise UserError(f"{said}; expected {wanted}{why}")


def as_array(name: str, value: Any) -> Array:
    """A value as an array of JAX, converted as NumPy would.

    Raises:
        UserError: nothing, or no numbers.
    """
    try:
        if value is None:
            raise TypeError("it is None")
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} cannot be read as an array of numbers: {reason}") from error


def _kind(array: Array) -> str:
    for kind, dtype in (("float", jnp.floating), ("int", jnp.integer), ("bool", jnp.bool_)):
        if jnp.issubdtype(array.dtype, dtype):
            return kind
    return "other"


def _numbers(name: str, value: Any, *, one: bool, optional: bool) -> Any:
    if isinstance(value, (bool, int, float)) or (value is None and optional):
        return value
    array = as_array(name, value)
    if _kind(array) == "other":
        raise UserError(f"{name} has dtype {array.dtype}; expected numbers")
    if one and array.shape != ():
        raise UserError(f"{name} has shape {array.shape}; expected one number: use jax.vmap for several")
    return together(array, [])


def _whole(name: str, value: Any, *, traced: bool, options: tuple[Any, ...]) -> Any:
    """A whole number, of which some may be an array that is traced."""
    if value is None and type(None) in options:
        return None
    if traced and isinstance(value, jax.Array):
        if value.shape != ():
            raise UserError(f"{name} has shape {value.shape}; expected one number: use jax.vmap for several")
        if _kind(value) != "int":
            raise UserError(f"{name} has dtype {value.dtype}; expected a whole number")
        return together(value, [])
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]  None is refused below
    except TypeError:
        none = ", or None" if type(None) in options else ""
        raise UserError(f"{name} is {value!r:.40}; expected a whole number{none}") from None


def _choice(name: str, value: Any, options: tuple[Any, ...]) -> Any:
    if not isinstance(value, str) or value not in options:
        raise UserError(f"{name} is {value!r:.40}; expected one of {', '.join(options)}")
    return value


def _key(name: str, value: Any, *, optional: bool) -> Any:
    if value is None and optional:
        return None
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if shape != ():
            raise UserError(f"{name} has shape {shape}; expected one key: use jax.vmap for several")
    elif not (dtype == jnp.uint32 and shape == (2,)):
        raise UserError(f"{name} is {value!r:.40}; expected a random key, such as jax.random.key(0)")
    return value


def _tuple(name: str, value: Any, of: type, fields: dict[str, _Array | None], sizes: Any, spread: str) -> Any:
    if not isinstance(value, of):
        raise UserError(f"{name} is of type {type(value).__name__}; expected a {of.__name__}")
    read = {
        field: _read(f"{name}.{field}", getattr(value, field), expected, sizes, spread)
        for field, expected in fields.items()
        if expected is not None
    }
    return value._replace(**read)


def together(array: Array, stays: list[bool]) -> Array:
    """An array of which no device has a part only, but for the axes that stay as they are; explicit axes of a mesh."""
    sharding = jax.typeof(array).sharding
    spec = tuple(sharding.spec)
    kept = [axis if stay else None for axis, stay in zip(spec, stays or [False] * len(spec), strict=True)]
    if list(spec) == kept:
        return array
    return jax.sharding.reshard(array, NamedSharding(sharding.mesh, PartitionSpec(*kept)))
