"""An architecture's keys in GGUF files: read, without effect, or accepted only at a value without effect.

As for `config.json` (`nejax.models.families.config_keys`), every key is on one of three lists, and others are named in
a warning. They are given without the architecture's name before them.
"""

from collections.abc import Mapping
from typing import Any

from nejax.models.families.config_keys import refused_values, warn
from nejax.models.families.family import GGUFLayout

ALSO_READ = (
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "attention.key_length",
    "attention.value_length",
)
"""Beside those of the layout."""

_ZERO = """
expert_count expert_used_count expert_shared_count expert_feed_forward_length expert_shared_feed_forward_length
expert_weights_scale leading_dense_block_count moe_every_n_layers nextn_predict_layers n_deepstack_layers
use_parallel_residual swin_norm rescale_every_n_layers token_shift_count embedding_length_out features_length
embedding_length_per_layer_input full_attention_interval
attention.max_alibi_bias attention.clamp_kqv attention.scale attention.sliding_window attention.sliding_window_pattern
attention.relative_buckets_count attention.q_lora_rank attention.kv_lora_rank attention.temperature_length
attention.key_length_mla attention.value_length_mla attention.key_length_swa attention.value_length_swa
attention.shared_kv_layers attention.indexer.top_k rope.dimension_count_swa rope.freq_base_swa rope.scaling.alpha
rope.scaling.yarn_log_multiplier ssm.inner_size ssm.conv_kernel ssm.state_size ssm.time_step_rank ssm.dt_b_c_rms
wkv.head_size
"""
"""Neutral at 0, or at false."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = dict.fromkeys(_ZERO.split(), (0,)) | {
    "attention.causal": (True,),
    "attention.output_scale": (0, 1),
    "attention.temperature_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "logit_scale": (0, 1),
    # What llama.cpp writes where it caps nothing.
    "attn_logit_softcapping": (0, 50),
    "final_logit_softcapping": (0, 30),
    "rope.dimension_sections": (0,),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (0, -1),
    "tensor_data_layout": ("Meta AI original pth",),
}
"""Keys that change the function, and the only values of them that are accepted."""

HARMLESS = frozenset(
    {
        "vocab_size",
        "attention.layer_norm_epsilon",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "pooling_type",
        "decoder_start_token_id",
    }
)
"""Of other norms and of scaling that is refused, or said by the tensors' shapes as well."""


def gguf_read_keys(layout: GGUFLayout) -> set[str]:
    """The keys whose values make the model."""
    return {*layout.keys.values(), *ALSO_READ}


def refused_fields(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of keys that change the function.

    Args:
        fields: by keys without the architecture.
    """
    problems = refused_values(NEUTRAL, fields)
    head, n_heads, d_model = (
        fields.get(key) for key in ("attention.key_length", "attention.head_count", "embedding_length")
    )
    if head is None and type(n_heads) is type(d_model) is int and n_heads:
        head = d_model // n_heads
    for key in ("rope.dimension_count", "attention.value_length"):
        if fields.get(key) not in (None, head):
            problems.append(f"{key} is {fields[key]!r} (heads have {head!r} dimensions)")
    return problems


def warn_of_unknown_fields(layout: GGUFLayout, fields: Mapping[str, Any], file: Any) -> None:
    """Name on standard error, in one line, the keys of the architecture that are on no list."""
    known = gguf_read_keys(layout) | NEUTRAL.keys() | HARMLESS
    warn({f"{layout.architecture}.{key}": fields[key] for key in fields if key not in known}, (), file)
