"""Fields of an SAE's `cfg.json` that do not change its function, or do so only at other values.

The fields that define the SAE are read by `nejax.models.sae.config`. Others are named in a warning.
"""

from typing import Any

_SAE_LENS = """
device dtype hook_layer hook_point_layer hook_layer_out hook_eval hf_hook_name neuronpedia_id
sae_lens_version sae_lens_training_version model_class_name model_kwargs sae dataset_path dataset_trust_remote_code
streaming is_dataset_tokenized tokenizer_name use_chat_formatting seqpos_slice disable_concat_sequences
sequence_separator_token begin_batch_token begin_sequence_token exclude_special_tokens use_cached_activations
cached_activations_path from_pretrained_path n_batches_in_buffer buffer_size_gb activations_mixing_fraction
training_tokens total_training_tokens store_batch_size store_batch_size_prompts train_batch_size
train_batch_size_tokens model_batch_size llm_device act_store_device prefetch_llm_batches seed autocast autocast_lm
compile_llm llm_compilation_mode compile_sae sae_compilation_mode adam_beta1 adam_beta2 lr lr_scheduler_name
lr_warm_up_steps lr_end lr_decay_steps n_restart_cycles dead_feature_window feature_sampling_window
dead_feature_threshold dead_feature_estimation_method n_eval_batches eval_batch_size_prompts
n_batches_for_norm_estimate logger log_to_wandb log_activations_store_to_wandb log_optimizer_state_to_wandb
log_weights_to_wandb wandb_project wandb_id wandb_entity wandb_log_frequency run_name eval_every_n_wandb_logs
n_checkpoints checkpoint_path save_final_checkpoint output_path resume resume_from_checkpoint verbose
decoder_init_norm l1_coefficient l1_warm_up_steps lp_norm l0_coefficient l0_warm_up_steps target_l0
pre_act_loss_coefficient aux_loss_coefficient use_sparse_activations jumprelu_init_threshold jumprelu_bandwidth
jumprelu_sparsity_loss_mode jumprelu_tanh_scale jumprelu_ste_to_input mse_loss_normalization use_ghost_grads
noise_scale normalize_sae_decoder decoder_orthogonal_init decoder_heuristic_init init_encoder_as_decoder_transpose
scale_sparsity_penalty_by_decoder_norm b_dec_init_method expansion_factor finetuning_tokens finetuning_method
finetuning_scaling_factor tokens_per_buffer feature_sampling_method resample_batches feature_reinit_scale
"""
SAE_LENS_HARMLESS = frozenset(_SAE_LENS.split())
"""Training, where to write, notes. The effect of `finetuning_scaling_factor` is in the weights."""

SPARSIFY_HARMLESS = frozenset({"normalize_decoder", "multi_topk", "expansion_factor"})
"""Training, and the number of latents where that is said twice."""

MODEL_HARMLESS = frozenset(
    {
        "fold_ln",
        "center_unembed",
        "fold_value_biases",
        "refactor_factored_attn_matrices",
        "default_prepend_bos",
        "default_padding_side",
        "dtype",
        "torch_dtype",
        "device",
        "n_devices",
        "move_to_device",
        "trust_remote_code",
        "attn_implementation",
    }
)
"""Of `model_from_pretrained_kwargs`: none changes a value that can be read, except that `fold_ln` changes one."""

ONE_VALUE_ONLY = (
    "hook_head_index",
    "hook_point_head_index",
    "hook_name_out",
    "hf_hook_name_out",
    "hook_head_index_out",
    "d_out",
)
"""Fields of SAEs of attention heads, and of transcoders, which map one value to another."""

NOT_READ = {
    "batchtopk": "save it with save_inference_model of SAELens, which makes it a jumprelu one",
    "matryoshka_batchtopk": "save it with save_inference_model of SAELens, which makes it a jumprelu one",
    "temporal": "its latents depend on other tokens, which is not supported",
    "matching_pursuit": "it chooses its latents one after the other, which is not supported",
    "abstopk": "its latents have both signs, which is not supported",
}
"""Architectures of SAELens that cannot be read, and why, or what to do."""


def why_not_read(architecture: Any) -> str:
    """Why an SAE of this architecture cannot be read, or what to do; empty if it is unknown."""
    if "transcoder" in str(architecture):
        return "transcoders map one value of a model to another, which is not supported"
    return NOT_READ.get(str(architecture), "")
