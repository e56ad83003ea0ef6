"""A Hugging Face model from its configuration, without its weights.

attnprof run examples/huggingface.py:small --backward
attnprof run examples/huggingface.py:llama_8b --fake        # 8 billion parameters, no memory
"""

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def small() -> tuple[nn.Module, tuple[()], dict[str, Any]]:
    """Four layers with grouped-query attention: 8 query heads share 2 key/value heads."""
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    return _with_inputs(config, length=128)


def llama_8b() -> tuple[nn.Module, tuple[()], dict[str, Any]]:
    """The shape of Llama 3.1 8B, on 4,096 tokens."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        dtype=torch.bfloat16,
    )
    return _with_inputs(config, length=4096)


def _with_inputs(config: LlamaConfig, length: int) -> tuple[nn.Module, tuple[()], dict[str, Any]]:
    model = LlamaForCausalLM(config).to(config.dtype or torch.float32)
    ids = torch.randint(config.vocab_size, (1, length))
    return model, (), {"input_ids": ids, "use_cache": False}
