"""A text classifier whose cost is under test."""

import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, LAYERS, HEADS, CLASSES, LENGTH = 1000, 128, 4, 4, 5, 64


class Classifier(nn.Module):
    """A transformer over tokens, their mean, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(dim=1))


def build() -> tuple[nn.Module, tuple[Tensor]]:
    """The model and the arguments of one call: what `attnprof run` and `attnprof check` count."""
    return Classifier(), (torch.zeros(1, LENGTH, dtype=torch.long),)
