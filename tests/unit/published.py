"""The published files of the paper's base, typed in as facts, around tiny random weights in the same layout.

Every key of each published `config.json` is here, also those that the classes of today do not know. `REDUCED` has the
sizes that the tests replace; nothing else differs.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from diffusers.models.controlnets.controlnet_sparsectrl import SparseControlNetModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from models.origins.pocket import pocket_tokenizer
from tests.unit import tiny

UNET = {  # stable-diffusion-v1-5/stable-diffusion-v1-5, unet/config.json
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
VAE = {  # the same repository, vae/config.json; it has no scaling_factor
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_ENCODER = {  # the same repository, text_encoder/config.json
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
MARK = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
TOKENIZER = {  # the same repository, tokenizer/tokenizer_config.json
    "add_prefix_space": False,
    "bos_token": MARK | {"content": "<|startoftext|>"},
    "do_lower_case": True,
    "eos_token": MARK | {"content": "<|endoftext|>"},
    "errors": "replace",
    "model_max_length": 77,
    "name_or_path": "openai/clip-vit-large-patch14",
    "pad_token": "<|endoftext|>",
    "special_tokens_map_file": "./special_tokens_map.json",
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": MARK | {"content": "<|endoftext|>"},
}
SCHEDULER = {  # the same repository, scheduler/scheduler_config.json
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
MOTION_ADAPTER = {  # guoyww/animatediff-motion-adapter-v1-5-3, config.json
    "_class_name": "MotionAdapter",
    "_diffusers_version": "0.25.0.dev0",
    "block_out_channels": [320, 640, 1280, 1280],
    "motion_layers_per_block": 2,
    "motion_max_seq_length": 32,
    "motion_mid_block_layers_per_block": 1,
    "motion_norm_num_groups": 32,
    "motion_num_attention_heads": 8,
    "use_motion_mid_block": False,
}
SPARSECTRL = {  # guoyww/animatediff-sparsectrl-rgb, config.json; the class does not use all of it
    "_class_name": "SparseControlNetModel",
    "_diffusers_version": "0.30.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "class_embed_type": None,
    "concat_conditioning_mask": True,
    "conditioning_channels": 4,
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlockMotion"] * 3, "DownBlockMotion"],
    "downsample_padding": 1,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "global_pool_conditions": False,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "motion_max_seq_length": 32,
    "motion_num_attention_heads": 8,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "temporal_transformer_layers_per_block": 1,
    "transformer_layers_per_block": 1,
    "transformer_layers_per_mid_block": None,
    "upcast_attention": False,
    "use_linear_projection": False,
    "use_simplified_condition_embedding": True,
}
MOTION_ADAPTERS = {  # other adapters of the same author, by what differs
    "v1-5": {"motion_max_seq_length": 24},
    "v1-5-2": {"use_motion_mid_block": True},
    "v1-5-3": {},
}
SCRIBBLE = SPARSECTRL | {"conditioning_channels": 3, "use_simplified_condition_embedding": False}
COMMUNITY_UNET = UNET | {  # as diffusers saves it since 0.21, for bases that people have trained further
    "_diffusers_version": "0.21.4",
    "_name_or_path": "community/base",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
    "upcast_attention": None,
    "use_linear_projection": False,
}
COMMUNITY_VAE = VAE | {"_diffusers_version": "0.21.4", "force_upcast": True, "scaling_factor": 0.18215}
COMMUNITY_TEXT_ENCODER = TEXT_ENCODER | {"torch_dtype": "float16", "transformers_version": "4.33.2"}
WIDTHS = [32, 32, 64, 64]
REDUCED: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": WIDTHS, "cross_attention_dim": 64},
    "vae": {"block_out_channels": [32, 32, 32, 32]},
    "text_encoder": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 1,
        "num_hidden_layers": 2,
        "projection_dim": 64,
        "vocab_size": len(pocket_tokenizer()),
    },
    "motion_adapter": {"block_out_channels": WIDTHS},
    "sparsectrl": {"block_out_channels": WIDTHS, "cross_attention_dim": 64},
}
CONFIGS = {
    "unet": UNET,
    "vae": VAE,
    "text_encoder": TEXT_ENCODER,
    "motion_adapter": MOTION_ADAPTER,
    "sparsectrl": SPARSECTRL,
}
CLASSES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "motion_adapter": MotionAdapter,
    "sparsectrl": SparseControlNetModel,
}
VARIANTS = ("safetensors", "fp16.safetensors", "bin", "fp16.bin", "shards", "bin shards")


def config(part: str) -> dict[str, Any]:
    """The published config with the reduced sizes."""
    return CONFIGS[part] | REDUCED[part]


def network(part: str, **changed: Any) -> nn.Module:
    """A network of the published config, every parameter random. `changed`: keys of its config."""
    torch.manual_seed(0)
    if part == "text_encoder":
        built: Any = CLIPTextModel(CLIPTextConfig(**config(part)))
    else:
        keys = CLASSES[part]._get_init_keys(CLASSES[part])
        built = CLASSES[part](**{key: value for key, value in (config(part) | changed).items() if key in keys})
    tiny.randomise(built)
    return built


def published_state(part: str, built: nn.Module) -> dict[str, Tensor]:
    """The weights under the keys of the published files, which are older than the classes of today."""
    state = {key: value for key, value in built.state_dict().items() if not key.endswith(".pos_embed.pe")}
    if part == "vae":
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for ours, theirs in names.items():
            state = {key.replace(f".attentions.0.{ours}.", f".attentions.0.{theirs}."): v for key, v in state.items()}
    if part == "text_encoder":
        state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return state


def write(folder: Path, part: str, variant: str = "safetensors", **changed: Any) -> nn.Module:
    """Write a part as it is published; returns the network with its weights. `changed`: keys of its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(part) | changed, indent=2))
    built = network(part, **changed)
    state = published_state(part, built)
    if variant.startswith("fp16"):
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.copy_(parameter.half())
    stem = "diffusion_pytorch_model"
    if part == "text_encoder":
        stem = "pytorch_model" if "bin" in variant else "model"
    if variant.endswith("shards"):
        _write_shards(folder, stem, "bin" if "bin" in variant else "safetensors", state)
    else:
        _write_tensors(folder / f"{stem}.{variant}", state)
    return built


def write_base(folder: Path, variant: str = "safetensors") -> None:
    """The repository of SD 1.5: UNet, VAE, text encoder, tokenizer, scheduler."""
    for part in ("unet", "vae", "text_encoder"):
        write(folder / part, part, variant)
    write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer files of 2022, with a small vocabulary; there is no tokenizer.json among them."""
    folder.mkdir(parents=True)
    model = json.loads(pocket_tokenizer().backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    marks = {key: TOKENIZER[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))


def original_motion_keys(state: dict[str, Tensor], motion_modules_only: bool) -> dict[str, Tensor]:
    """Diffusers' keys as AnimateDiff's own, with the position codes of each attention."""
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".motion_modules." not in key:
            if not motion_modules_only:
                result[key] = value
            continue
        head, _, tail = key.partition(".motion_modules.")
        number, _, tail = tail.partition(".")
        for ours, theirs in (("attn1.", "attention_blocks.0."), ("attn2.", "attention_blocks.1.")):
            tail = tail.replace(ours, theirs)
        for i in (1, 2):
            tail = tail.replace(f"norm{i}.", f"norms.{i - 1}.")
        tail = tail.replace("norm3.", "ff_norm.")
        place = f"{head}.motion_modules.{number}.temporal_transformer."
        if tail.endswith("pos_embed.pe"):
            for i in (0, 1):
                result[f"{place}transformer_blocks.0.attention_blocks.{i}.pos_encoder.pe"] = value
        else:
            result[place + tail] = value
    return result


def _write_tensors(path: Path, state: dict[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


def _write_shards(folder: Path, stem: str, kind: str, state: dict[str, Tensor]) -> None:
    keys = sorted(state)
    places = {key: f"{stem}-0000{1 + (i >= len(keys) // 2)}-of-00002.{kind}" for i, key in enumerate(keys)}
    for name in set(places.values()):
        _write_tensors(folder / name, {key: state[key] for key in keys if places[key] == name})
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))


BLIP2 = {  # Salesforce/blip2-opt-2.7b, config.json
    "architectures": ["Blip2ForConditionalGeneration"],
    "image_text_hidden_size": 256,
    "image_token_index": 50265,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "model_type": "blip-2",
    "num_query_tokens": 32,
    "qformer_config": {"classifier_dropout": None, "model_type": "blip_2_qformer"},
    "text_config": {
        "_name_or_path": "facebook/opt-2.7b",
        "activation_dropout": 0.0,
        "architectures": ["OPTForCausalLM"],
        "eos_token_id": 50118,
        "ffn_dim": 10240,
        "hidden_size": 2560,
        "model_type": "opt",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "prefix": "</s>",
        "torch_dtype": "float16",
        "vocab_size": 50304,
        "word_embed_proj_dim": 2560,
    },
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "use_decoder_only_language_model": True,
    "vision_config": {
        "dropout": 0.0,
        "initializer_factor": 1.0,
        "model_type": "blip_2_vision_model",
        "num_channels": 3,
        "projection_dim": 512,
    },
}
BLIP2_PREPROCESSOR = {  # the same repository, preprocessor_config.json
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "processor_class": "Blip2Processor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
BLIP2_REDUCED: dict[str, Any] = {
    "image_token_index": 300,
    "num_query_tokens": 2,
    "text_config": {"ffn_dim": 16, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    | {"vocab_size": 320, "word_embed_proj_dim": 16, "eos_token_id": 2},
    "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    | {"image_size": 28, "patch_size": 14},
    "qformer_config": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    | {"encoder_hidden_size": 16, "vocab_size": 320},
}


def write_blip2(folder: Path, before_image_tokens: bool = False) -> None:
    """The repository of BLIP-2 with tiny random weights; as it was before October 2024, if asked for."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    folder.mkdir(parents=True)
    parts = {key: BLIP2[key] | BLIP2_REDUCED[key] for key in ("text_config", "vision_config", "qformer_config")}
    settings = BLIP2 | {key: value for key, value in BLIP2_REDUCED.items() if not isinstance(value, dict)} | parts
    torch.manual_seed(0)
    network = Blip2ForConditionalGeneration(Blip2Config(**settings))
    tiny.randomise(network)
    save_file({key: value.clone() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    if before_image_tokens:
        del settings["image_token_index"], settings["image_text_hidden_size"]
    else:
        processor = {"num_query_tokens": 2, "processor_class": "Blip2Processor"}
        (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "config.json").write_text(json.dumps(settings))
    preprocessor = BLIP2_PREPROCESSOR | {"size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    tokenizer = marks | {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "errors": "replace"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


FLAN_T5 = {  # Salesforce/blip2-flan-t5-xl, text_config of config.json; T5 has no token that begins a text
    "_name_or_path": "google/flan-t5-xl",
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 5120,
    "d_model": 2048,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu",
    "feed_forward_proj": "gated-gelu",
    "is_gated_act": True,
    "model_type": "t5",
    "n_positions": 512,
    "num_decoder_layers": 24,
    "num_heads": 32,
    "num_layers": 24,
    "output_past": True,
    "task_specific_params": {},
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
FLAN_T5_REDUCED = {"d_ff": 16, "d_kv": 8, "d_model": 16, "num_decoder_layers": 1, "num_heads": 2, "num_layers": 1}


def write_blip2_with_t5(folder: Path) -> None:
    """The repository of BLIP-2 with T5, an encoder and a decoder, in place of OPT; tiny random weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    write_blip2(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    settings = json.loads((folder / "config.json").read_text())
    settings |= {
        "use_decoder_only_language_model": False,
        "text_config": FLAN_T5 | FLAN_T5_REDUCED | {"vocab_size": 320},
    }
    torch.manual_seed(0)
    network = Blip2ForConditionalGeneration(Blip2Config(**settings))
    tiny.randomise(network)
    save_file({key: value.clone() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    marks = ["<pad>", "</s>", "<unk>"]
    words = [(mark, 0.0) for mark in marks] + [(chr(ord("a") + i), -3.0) for i in range(310)]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    named = dict(zip(("pad_token", "eos_token", "unk_token"), marks, strict=True))
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    described = named | {"extra_ids": 0, "model_max_length": 512, "tokenizer_class": "T5Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


QWEN2_VL = {  # Qwen/Qwen2-VL-2B-Instruct, config.json
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
QWEN2_VL_PREPROCESSOR = {  # the same repository, preprocessor_config.json
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
QWEN_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
QWEN_MARKS += ["<|image_pad|>", "<|video_pad|>"]
QWEN_TEMPLATE = (  # shorter than the published one, with the same marks around a turn and a picture
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_qwen2_vl(folder: Path) -> None:
    """The repository of Qwen2-VL with tiny random weights, its marks behind the 256 bytes of the vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder.mkdir(parents=True)
    places = {mark: 256 + i for i, mark in enumerate(QWEN_MARKS)}
    reduced = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    reduced |= {"num_key_value_heads": 1, "vocab_size": 264, "bos_token_id": 256, "eos_token_id": 258}
    reduced |= {"vision_start_token_id": 259, "vision_end_token_id": 260, "vision_token_id": 261}
    reduced |= {"image_token_id": 262, "video_token_id": 263}
    vision = QWEN2_VL["vision_config"] | {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32}
    rope = {"type": "mrope", "mrope_section": [2, 3, 3]}
    settings = QWEN2_VL | reduced | {"vision_config": vision, "rope_scaling": rope}
    torch.manual_seed(0)
    network = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**settings))
    for parameter in network.requires_grad_(False).parameters():
        if parameter.ndim > 1:  # large enough for an answer that depends on the picture
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text(json.dumps(QWEN2_VL_PREPROCESSOR))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(sorted(ByteLevel.alphabet()))}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {str(place): {"content": mark, "special": True} for mark, place in places.items()}
    marks = {
        place: mark | dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        for place, mark in marks.items()
    }
    tokenizer = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": marks, "eos_token": "<|im_end|>"}
    tokenizer |= {"pad_token": "<|endoftext|>", "errors": "replace", "unk_token": None, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
