"""The caches of Hugging Face models have the bytes of their closed forms.

Symbols: B batch, S tokens, L layers, H heads, Hkv key-value heads of width dh, d width, e bytes per element.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attnprof.capture.kv_cache import cache_of

B, H, S, L = 2, 3, 5, 2
IDS = torch.zeros(B, S, dtype=torch.int64)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def called(model: nn.Module, **kwargs: Any) -> Any:
    with torch.no_grad():
        output = model.eval()(use_cache=True, **kwargs)
    return cache_of(model, (), kwargs, output)


def llama(**options: Any) -> nn.Module:
    config = hf.LlamaConfig(
        hidden_size=16, num_attention_heads=4, num_hidden_layers=L, vocab_size=20, intermediate_size=8, **options
    )  # fmt: skip
    return hf.LlamaForCausalLM(config)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dynamic_cache(kv_heads: int, dtype: torch.dtype) -> None:
    """2 B L S Hkv dh e bytes: multi-query, grouped and multi-head attention."""
    found = called(llama(num_key_value_heads=kv_heads).to(dtype), input_ids=IDS)
    assert found == ((2 * B * S * kv_heads * 4 * dtype.itemsize,) * L, S)


def test_dynamic_cache_on_fake_tensors() -> None:
    with FakeTensorMode():
        found = called(llama(num_key_value_heads=2), input_ids=torch.zeros(B, S, dtype=torch.int64))
    assert found == ((2 * B * S * 2 * 4 * 4,) * L, S)


def test_a_static_cache_is_there_at_once() -> None:
    model = llama(num_key_value_heads=2)
    cache = hf.StaticCache(model.config, max_cache_len=32)
    found = called(model, input_ids=IDS, past_key_values=cache)
    assert found == ((2 * B * 32 * 2 * 4 * 4,) * L, 32)


def test_sliding_and_full_layers() -> None:
    """A sliding window of w keeps the w - 1 tokens that the next one sees beside itself."""
    w = 4
    config = hf.Gemma3TextConfig(
        hidden_size=16, num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_hidden_layers=2, vocab_size=20,
        intermediate_size=8, sliding_window=w, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    found = called(hf.Gemma3ForCausalLM(config), input_ids=IDS)
    assert found == ((2 * B * (w - 1) * 8 * 4, 2 * B * S * 8 * 4), S)


def test_encoder_decoder() -> None:
    """Each layer keeps the decoder's own tokens and, for good, the encoder's."""
    config = hf.T5Config(d_model=16, d_kv=4, d_ff=8, num_layers=L, num_heads=H, vocab_size=20, decoder_start_token_id=0)
    started = torch.zeros(B, 1, dtype=torch.int64)
    found = called(hf.T5ForConditionalGeneration(config), input_ids=IDS, decoder_input_ids=started)
    assert found == ((2 * B * (1 + S) * H * 4 * 4,) * L, 1)


def test_recurrent_states() -> None:
    """Mamba: the last convolution inputs and the state, of inner width 2 d each; no token adds to them."""
    d, n, kernel = 16, 4, 4
    config = hf.MambaConfig(hidden_size=d, num_hidden_layers=L, vocab_size=20, state_size=n, conv_kernel=kernel)
    found = called(hf.MambaForCausalLM(config), input_ids=IDS)
    assert found == ((B * 2 * d * (kernel + n) * 4,) * L, None)


def test_rwkv_state() -> None:
    """Five tensors [B, d, L], whatever the length."""
    config = hf.RwkvConfig(hidden_size=16, attention_hidden_size=16, num_hidden_layers=L, vocab_size=20)
    found = called(hf.RwkvForCausalLM(config), input_ids=IDS)
    assert found == ((B * 16 * L * 4,) * 5, None)
