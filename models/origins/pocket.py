"""The networks of the pocket foundation: the paper's classes, small enough for a CPU and trained from scratch."""

import itertools
import json
from collections.abc import Iterable

from diffusers import DDIMScheduler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.scenes import BACKGROUNDS, COLOURS, SHAPES

CODEC_FACTOR = 8
TEXT_LENGTH = 24
PROCEDURAL_WORDS = tuple(f"a an and on background {' '.join(names)}" for names in (COLOURS, BACKGROUNDS, SHAPES))


def pocket_tokenizer(texts: Iterable[str] = PROCEDURAL_WORDS, size: int = 400) -> CLIPTokenizer:
    """A CLIP tokenizer whose vocabulary is the commonest words of `texts` (and, for other words, their letters).

    Args:
        texts: captions, or words of captions; those of the procedural scenes by default.
        size: of the vocabulary, at most.
    """
    captions = list(itertools.chain.from_iterable(itertools.repeat(list(texts), 4)))
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789,.!?-'")
    last_letters = [f"{letter}</w>" for letter in alphabet]  # named here, or the trainer numbers them at random
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *last_letters],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    vocab = bpe.get_vocab()
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)


def pocket_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """Two CLIP text layers of the given width."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pocket_unet(
    latent_channels: int, channels: list[int], norm_groups: int, heads: int, motion_heads: int, text_width: int
) -> MotionUNet:
    """A base that sees the first frame beside the noise (the remedy of App D): 2 C channels in, C out."""
    return MotionUNet(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(channels),
        down_block_types=("DownBlockMotion",) + ("CrossAttnDownBlockMotion",) * (len(channels) - 1),
        up_block_types=("CrossAttnUpBlockMotion",) * (len(channels) - 1) + ("UpBlockMotion",),
        layers_per_block=1,
        norm_num_groups=norm_groups,
        motion_norm_num_groups=norm_groups,
        cross_attention_dim=text_width,
        num_attention_heads=heads,
        motion_num_attention_heads=motion_heads,
        motion_max_seq_length=32,
        use_motion_mid_block=False,
    )


def pocket_image_controlnet(unet: MotionUNet) -> ImageControlNet:
    """An image ControlNet of the UNet's shape; its condition is first-frame latents plus mask."""
    shared = (
        "block_out_channels down_block_types layers_per_block norm_num_groups motion_norm_num_groups "
        "cross_attention_dim num_attention_heads motion_max_seq_length"
    ).split()
    return ImageControlNet(
        in_channels=unet.config.out_channels,
        conditioning_channels=unet.config.out_channels,
        motion_num_attention_heads=unet.config.motion_num_attention_heads,
        concat_conditioning_mask=True,
        use_simplified_condition_embedding=True,
        **{key: unet.config[key] for key in shared},
    )


def start_away_from_zero(network: ImageControlNet | MotionControlNet) -> None:
    """Give condition embedding and output layers random weights: at zero, joint training starts too slowly."""
    for module in (network.controlnet_cond_embedding, *network.controlnet_down_blocks, network.controlnet_mid_block):
        module.reset_parameters()


def pocket_scheduler() -> DDIMScheduler:
    """DDIM that starts from pure noise (zero terminal SNR) and predicts the clean latents."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
