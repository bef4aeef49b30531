"""A language model of random weights, small enough to write in milliseconds, saved as
`promptmill models pull smollm2` saves the real one."""

from __future__ import annotations

from pathlib import Path

from worker.expand import weights, words

NOUNS = [
    "heart",
    "cat",
    "dog",
    "house",
    "tree",
    "bird",
    "fish",
    "star",
    "moon",
    "sun",
    "cup",
    "hat",
    "car",
    "boat",
    "train",
    "plane",
    "flower",
    "leaf",
    "apple",
    "pear",
    "cloud",
    "hill",
    "river",
    "road",
    "door",
    "window",
    "lamp",
    "book",
    "key",
    "clock",
    "red",
    "green",
    "blue",
    "small",
    "large",
]

SAID = (  # it happens to use most of these in what it answers to them
    "dog", "fish", "boat", "car", "train", "plane", "flower", "leaf", "apple", "pear", "heart", "cat",
)  # fmt: skip


def save(data_dir: Path) -> str:
    """The digest of what was written below `data_dir`."""
    import torch
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = weights.folder(data_dir)
    plain = ["<unk>", "user", "Describe", "a", "picture", "of", ":", "assistant", *NOUNS]
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(plain)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for special in ("<|im_start|>", words.ENDED):
        tokenizer.add_special_tokens([AddedToken(special, special=True)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(plain) + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=len(plain) + 1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    digest = weights.hash_of(folder)
    (folder / weights.WHOLE).write_text(digest)
    return digest
