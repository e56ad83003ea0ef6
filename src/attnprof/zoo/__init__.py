"""Reference modules of attention variants and their relatives: real work, in readable PyTorch.

``names()`` lists them, ``build("gqa", d=768, H=12, Hkv=4)`` makes one, ``inputs("gqa", B=2, T=128)`` what to
call it with. Each class's docstring has its shapes, its cost and its source.
"""

from attnprof.zoo.registry import build, find, inputs, names

__all__ = ["build", "find", "inputs", "names"]
