"""What is wrong with the tensors of a model's files, and what a user can do about it."""

import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from nejax.models.families.family import Family
from nejax.models.formats.model_files import StoredTensor

HEAD = "lm_head.weight"
STORED_DTYPES = ("F64", "F32", "F16", "BF16")

_NOT_EXPECTED, _DIFFERENT_HEAD = "not expected", "not the same as {}"
_QUANTISED = re.compile(
    r".*\.(qweight|qzeros|scales|g_idx|SCB|weight_format|absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\..*|weight_scale|weight_scale_inv|weight_packed|weight_shape|weight_zero_point|input_scale)"
)
_ADAPTER = re.compile(r".*\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)\b.*")


def misplaced_tensors(
    stored: Mapping[str, StoredTensor], family: Family, names: Mapping[str, str], n_layers: int
) -> defaultdict[str, list[str]]:
    """What is wrong with the tensors that fill no parameter: kind of problem -> names.

    Args:
        stored: by name without prefix.
        family: of the model.
        names: the family's table, without what this model does not have.
        n_layers: of the model.
    """
    problems: defaultdict[str, list[str]] = defaultdict(list)
    expected = {template.format(layer) for template in names for layer in range(n_layers)} | {HEAD}
    unexpected = [name for name in stored if name not in expected and not re.fullmatch(family.ignored, name)]
    if unexpected:
        problems[_NOT_EXPECTED] = sorted(unexpected)
    if HEAD in stored and HEAD not in names and not _same(stored[HEAD], stored.get(family.embedding)):
        problems[_DIFFERENT_HEAD.format(family.embedding)].append(HEAD)
    return problems


def remedy(problems: Mapping[str, list[str]], family: Family, names: Mapping[str, str]) -> str:
    """What to do about them, for the end of a message.

    Args:
        problems: kind of problem -> names.
        family: of the model.
        names: the family's table, without what this model does not have.
    """
    missing, unexpected = problems.get("missing", []), problems.get(_NOT_EXPECTED, [])
    prefix = next((name.removesuffix(family.embedding) for name in unexpected if name.endswith(family.embedding)), "")
    if any(map(_QUANTISED.fullmatch, unexpected)) or "wrong type" in problems:
        return f"quantised weights are read from GGUF files only; get the model in one of {', '.join(STORED_DTYPES)}"
    if any(map(_ADAPTER.fullmatch, unexpected)):
        return "adapters are not read; merge them into the model they belong to (merge_and_unload of peft)"
    if prefix:
        return f"its names begin with {prefix!r}; rename them to begin with {family.prefix!r}, or with nothing"
    if _DIFFERENT_HEAD.format(family.embedding) in problems:
        return "if the model has a head of its own, set tie_word_embeddings to false"
    if missing == [HEAD]:
        return "if the head is the token embedding, set tie_word_embeddings to true"
    if missing and all(name.endswith(".bias") for name in missing):
        return (
            f"a {family.architecture} without these biases cannot be read; "
            "biases of zeros under their names make the same function"
        )
    if any(_is_transposed(detail) for detail in problems.get("wrong shape", [])):
        stored = "[out, in]" if family.kernels_are_transposed else "[in, out]"
        return f"matrices that are transposed cannot be read: a {family.architecture} stores them as {stored}"
    return f"expected the tensors of a {family.architecture}; if these are, get the model's files again"


def _is_transposed(detail: str) -> bool:
    """Whether a matrix, `NAME [shape] (expected [shape])`, has its two sides exchanged."""
    shapes = [tuple(map(int, found.split(","))) for found in re.findall(r"\[(\d+, \d+)\]", detail)]
    return len(shapes) == 2 and shapes[0] == shapes[1][::-1]


def _same(a: StoredTensor, b: StoredTensor | None) -> bool:
    if a is b:
        return True
    if b is None or (a.shape, a.dtype) != (b.shape, b.dtype) or a.dtype not in STORED_DTYPES:
        return False
    return np.array_equal(a.read(), b.read(), equal_nan=True)
