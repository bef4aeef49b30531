"""Checkpoints as large as well-known ones, with random weights, for measuring what a GPU does
with such sizes where no real weights are at hand. The text encoders have tiny vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests import checkpoints


def sdxl_turbo(folder: Path, device: str) -> Path:
    """The sizes of SDXL-Turbo: a network of 2.6 billion parameters, 512x512."""
    from diffusers import (
        EulerAncestralDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    with torch.device(device):
        text, text_2 = _clip(768, 12, 12), _clip(1280, 32, 20, projection=True)
        vae = _vae(4)
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=(320, 640, 1280), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=vae, unet=unet, text_encoder=text, text_encoder_2=text_2,
        scheduler=EulerAncestralDiscreteScheduler(timestep_spacing="trailing"),
        tokenizer=checkpoints.clip_tokenizer(folder / "tokenizer"),
        tokenizer_2=checkpoints.clip_tokenizer(folder / "tokenizer_2"), add_watermarker=False,
    )  # fmt: skip
    return _saved(pipe, folder)


def flux_fifth(folder: Path, device: str) -> Path:
    """The width of FLUX.1 schnell at a fifth of its depth: 4 double and 8 single blocks, 2.5
    billion parameters, and a T5 of two layers; 512x512."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    with torch.device(device):
        text, vae = _clip(768, 12, 12), _vae(16)
        transformer = FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=4, num_single_layers=8, attention_head_dim=128,
            num_attention_heads=24, joint_attention_dim=4096, pooled_projection_dim=768,
            axes_dims_rope=(16, 56, 56), guidance_embeds=False,
        )  # fmt: skip
        encoder = T5EncoderModel(
            T5Config(
                vocab_size=300, d_model=4096, d_kv=64, d_ff=10240, num_layers=2, num_heads=64,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, transformer=transformer,
        text_encoder=text,
        tokenizer=checkpoints.clip_tokenizer(folder / "tokenizer"), text_encoder_2=encoder,
        tokenizer_2=checkpoints.t5_tokenizer(),
    )  # fmt: skip
    return _saved(pipe, folder)


def janus_pro_1b(folder: Path, device: str) -> Path:
    """The sizes of Janus-Pro-1B: 576 tokens a picture, 384x384."""
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        JanusVisionConfig,
        JanusVQVAEConfig,
        LlamaConfig,
    )

    hidden = 2048
    text = LlamaConfig(
        vocab_size=102400, hidden_size=hidden, intermediate_size=5632, num_hidden_layers=24,
        num_attention_heads=16, num_key_value_heads=16, max_position_embeddings=16384,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    vision = JanusVisionConfig(projection_dim=hidden, num_image_tokens=576)
    codes = JanusVQVAEConfig(projection_dim=hidden, image_token_embed_dim=hidden)
    with torch.device(device):
        model = JanusForConditionalGeneration(
            JanusConfig(
                text_config=text, vision_config=vision, vq_config=codes, image_token_id=5,
                tie_word_embeddings=False,
            )
        )  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(folder)
    checkpoints.janus_tokenizer().save_pretrained(folder)
    return folder


MAKERS: dict[str, Callable[[Path, str], Path]] = {
    maker.__name__: maker for maker in (sdxl_turbo, flux_fifth, janus_pro_1b)
}


def make(name: str, folder: Path, device: str) -> Path:
    """The checkpoint `name` in `folder`, in bfloat16, its weights drawn on `device`."""
    torch.manual_seed(0)
    return MAKERS[name](folder, device)


def _saved(pipe: Any, folder: Path) -> Path:
    for part in pipe.components.values():
        if hasattr(part, "parameters"):
            part.to(torch.bfloat16)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _vae(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512, shift_factor=0.1,
    )  # fmt: skip


def _clip(hidden: int, layers: int, heads: int, projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514, hidden_size=hidden, intermediate_size=4 * hidden,
        num_hidden_layers=layers, num_attention_heads=heads, projection_dim=hidden,
        bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
