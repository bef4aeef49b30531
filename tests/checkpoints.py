"""Tiny checkpoints with random weights, written as the hub keeps them: made from config by
the libraries themselves, a few megabytes each, and loaded by the code that loads real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 64  # pixels of a side of every picture


def _bytes_to_symbols() -> list[str]:
    """The 256 symbols that byte-level BPE writes bytes with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(rest)) for b in range(256)]


def clip_tokenizer(folder: Path) -> Any:
    """Every byte its own token."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    symbols = _bytes_to_symbols()
    words = [*symbols, *(f"{s}</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(vocab=str(vocabulary), merges=str(merges), model_max_length=77)


def _clip_text(projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514, hidden_size=32, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=32,
        bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _vae(channels: int = 4) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64), in_channels=3, out_channels=3, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8, sample_size=SIZE, shift_factor=0.1,
    ).eval()  # fmt: skip


def _unet(in_channels: int = 4, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE // 2, in_channels=in_channels, out_channels=4, layers_per_block=1,
        block_out_channels=(32, 64), norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    ).eval()  # fmt: skip


def sd(folder: Path, *, in_channels: int = 4) -> Path:
    """Stable Diffusion; with nine channels, a checkpoint made for inpainting."""
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline, StableDiffusionPipeline

    kind = StableDiffusionPipeline if in_channels == 4 else StableDiffusionInpaintPipeline
    pipe = kind(
        vae=_vae(), unet=_unet(in_channels, cross_attention_dim=32, attention_head_dim=8),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), text_encoder=_clip_text(),
        tokenizer=clip_tokenizer(folder / "tokenizer"), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def inpainting(folder: Path) -> Path:
    return sd(folder, in_channels=9)


def sdxl_turbo(folder: Path) -> Path:
    """SDXL with the scheduler of a model distilled to one step."""
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionXLPipeline

    unet = _unet(
        attention_head_dim=(2, 4), use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80, cross_attention_dim=64,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=_vae(), unet=unet, text_encoder=_clip_text(), text_encoder_2=_clip_text(True),
        scheduler=EulerAncestralDiscreteScheduler(timestep_spacing="trailing"),
        tokenizer=clip_tokenizer(folder / "tokenizer"),
        tokenizer_2=clip_tokenizer(folder / "tokenizer_2"), add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def t5_tokenizer() -> Any:
    """Every byte its own token, 64 at most."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    words |= {symbol: i + 3 for i, symbol in enumerate(_bytes_to_symbols())}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=64,
    )  # fmt: skip


def flux_schnell(folder: Path) -> Path:
    """FLUX without the guidance embedding, as in the variant distilled to four steps."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    encoder = T5EncoderModel(
        T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    ).eval()
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8), guidance_embeds=False,
    ).eval()  # fmt: skip
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=_vae(4), text_encoder=_clip_text(),
        tokenizer=clip_tokenizer(folder / "tokenizer"), text_encoder_2=encoder,
        tokenizer_2=t5_tokenizer(), transformer=transformer,
    )  # fmt: skip
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def byte_tokenizer(special: dict[str, int], **roles: str) -> Any:
    """A byte-level tokenizer whose first ids are `special`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = dict(special)
    for symbol in _bytes_to_symbols():
        words[symbol] = len(words)
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def janus_tokenizer() -> Any:
    """Its first ids are the special tokens that Janus needs."""
    tokens = {"<bos>": 0, "<eos>": 1, "<pad>": 2, "<begin_of_image>": 3, "<end_of_image>": 4,
              "<image_placeholder>": 5}  # fmt: skip
    return byte_tokenizer(
        tokens, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        extra_special_tokens={"boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>",
                              "image_token": "<image_placeholder>"},
    )  # fmt: skip


def janus(folder: Path) -> Path:
    """64 tokens a picture of 64x64."""
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        JanusVisionConfig,
        JanusVQVAEConfig,
        LlamaConfig,
    )

    hidden = 64
    text = LlamaConfig(
        vocab_size=512, hidden_size=hidden, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    vision = JanusVisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, image_size=64, patch_size=8,
        projection_dim=hidden, num_image_tokens=64, depth=2,
    )  # fmt: skip
    codes = JanusVQVAEConfig(
        embed_dim=8, num_embeddings=256, latent_channels=32, base_channels=32,
        channel_multiplier=[1, 1, 2, 2], num_res_blocks=1, projection_dim=hidden,
        image_token_embed_dim=hidden, num_patches=8,
    )  # fmt: skip
    model = JanusForConditionalGeneration(
        JanusConfig(
            text_config=text, vision_config=vision, vq_config=codes, image_token_id=5,
            tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    model.save_pretrained(folder)
    janus_tokenizer().save_pretrained(folder)
    return folder


def emu3(folder: Path) -> Path:
    """Pictures of any size that is a multiple of 8."""
    from transformers import Emu3Config, Emu3ForConditionalGeneration, Emu3TextConfig
    from transformers.models.emu3 import Emu3VQVAEConfig

    special = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<image>": 3, "<boi>": 4, "<eoi>": 5,
               "<wrapper>": 6, "<eof>": 7, "<eol>": 8}  # fmt: skip
    codes = 32
    tokenizer = byte_tokenizer(
        special, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>",
                              "image_wrapper_token": "<wrapper>", "eof_token": "<eof>"},
    )  # fmt: skip
    first = len(tokenizer)
    words = {
        **tokenizer.get_vocab(),
        **{f"<|visual token {i:06d}|>": first + i for i in range(codes)},
        "<|extra_200|>": special["<eol>"],
    }
    text = Emu3TextConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    vision = Emu3VQVAEConfig(
        codebook_size=codes, embed_dim=4, latent_channels=4, base_channels=32,
        channel_multiplier=[1, 1, 1, 1], num_res_blocks=1, hidden_size=32, attn_resolutions=[],
        temporal_downsample_factor=1,
    )  # fmt: skip
    model = Emu3ForConditionalGeneration(
        Emu3Config(text_config=text, vq_config=vision, vocabulary_map=words)
    ).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder: Path) -> Path:
    """A vision transformer that is of many minds about pictures: `normal` or `nsfw`."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1}, initializer_range=0.5,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias.zero_()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}'
    )
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker for maker in (sd, inpainting, sdxl_turbo, flux_schnell, janus, emu3)
}


def make(name: str, folder: Path) -> Path:
    """The checkpoint `name` in `folder`, always with the same weights."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return (MAKERS | {"classifier": classifier})[name](folder)
