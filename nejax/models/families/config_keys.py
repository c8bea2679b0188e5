"""The keys of a `config.json`: read, without effect, or accepted only at a value without effect.

Every key is on one of three lists of its model's family: *read* (`Family.config_keys`, `aliases`, `also_read`),
*neutral* (`Family.neutral` and `NEUTRAL`: keys that change the function, with the only values that are accepted) and
*harmless* (`Family.harmless` and `HARMLESS`: training, generation, notes). A key on none of them is named in a warning.
"""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from nejax.models.families.family import Family

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # what transformers obeys in every family
    "is_causal": (True,),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "layer_types": (None, "full_attention"),
    "sliding_window": (None,),
    "attention_chunk_size": (None,),
    "per_layer_config": (None, {}),
    "pruned_heads": (None, {}),
    "quantization_config": (None, {}),
    "compression_config": (None, {}),
    # what it obeys in families near these, from which files are sometimes relabelled
    "use_sliding_window": (None, False),
    "use_bidirectional_attention": (None, False),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "clip_qkv": (None,),
    "qk_norm": (None, False),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "alibi": (None, False),
    "no_rope_layers": (None,),
    "num_local_experts": (None, 0),
    "num_experts": (None, 0),
}
"""Of every family."""

_HARMLESS = {
    "notes on the file": (
        "_name_or_path name_or_path _commit_hash architectures model_type transformers_version transformers.js_config "
        "dtype torch_dtype use_bfloat16 tokenizer_class unsloth_version unsloth_fixed _unsloth_fix finetuning_task "
        "license language"
    ),
    "how it is run": (
        "attn_implementation _attn_implementation _attn_implementation_internal _attn_implementation_autoset "
        "experts_implementation _experts_implementation _experts_implementation_internal _flash_attn_2_enabled "
        "use_cache output_attentions _output_attentions output_hidden_states return_dict use_return_dict torchscript "
        "chunk_size_feed_forward gradient_checkpointing"
    ),
    "training": (
        "initializer_range initializer_factor keys_to_ignore_at_inference tf_legacy_loss loss_type "
        "tie_encoder_decoder is_decoder cross_attention_hidden_size"
    ),
    "heads of other tasks": "id2label label2id num_labels _num_labels problem_type classifier_dropout",
    "generation": (
        "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id "
        "decoder_start_token_id task_specific_params prefix max_length min_length max_new_tokens do_sample "
        "early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p min_p typical_p "
        "epsilon_cutoff eta_cutoff repetition_penalty encoder_repetition_penalty length_penalty "
        "exponential_decay_length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
        "begin_suppress_tokens suppress_tokens forced_bos_token_id forced_eos_token_id num_return_sequences "
        "output_scores return_dict_in_generate remove_invalid_values assistant_confidence_threshold "
        "assistant_lookbehind num_assistant_tokens num_assistant_tokens_schedule target_lookbehind"
    ),
}
HARMLESS = frozenset(key for keys in _HARMLESS.values() for key in keys.split())
"""Of every family."""


def read_keys(family: Family) -> set[str]:
    """The keys whose values make the model."""
    return {*family.config_keys.values(), *family.aliases, *family.also_read}


def neutral_keys(family: Family) -> dict[str, tuple[Any, ...]]:
    """The keys that change the function, and the values at which they do not; all others are refused."""
    return {key: values for key, values in {**NEUTRAL, **family.neutral}.items() if key not in read_keys(family)}


def without_aliases(family: Family, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings under their own names, and what is wrong: an alias that contradicts what it stands for."""
    plain, problems = dict(settings), []
    for alias, key in family.aliases.items():
        if alias in settings and plain.setdefault(key, settings[alias]) != settings[alias]:
            problems.append(f"{alias} is {settings[alias]!r} and {key}, which is the same, {plain[key]!r}")
    return plain, problems


def refused_values(neutral: Mapping[str, tuple[Any, ...]], settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of keys that change the function. Of a list, every entry counts."""
    problems = []
    for key, values in neutral.items():
        if key not in settings:
            continue
        found = settings[key]
        if not all(value in values for value in (found if found and isinstance(found, list) else [found])):
            accepted = [value for value in values if value not in (None, {})] or [None]
            problems.append(f"{key} is {shortened(found)}, only {' or '.join(map(repr, accepted))} is implemented")
    return problems


def warn_of_unknown(family: Family, settings: Mapping[str, Any], source: Any) -> None:
    """Name on standard error, in one line, the keys of a `config.json` that are on no list."""
    warn(settings, read_keys(family) | neutral_keys(family).keys() | HARMLESS | family.harmless, source)


def warn(settings: Mapping[str, Any], known: Collection[str], source: Any) -> None:
    """Name on standard error, in one line, the keys that are not known, with their values."""
    unknown = [f"{key} {shortened(value)}" for key, value in settings.items() if key not in known]
    if unknown:
        line = f"{source} has keys that nejax does not know and leaves out: {', '.join(unknown)}"
        print(f"warning: {' '.join(line.split())}; make sure that the model does not need them", file=sys.stderr)


def shortened(value: Any) -> str:
    """A value for a message; of a long one, the beginning."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
