"""The model: an encoder and a linear head."""

from torch import Tensor, nn

from alfamix_core.acquisition.types import LinearHead
from alfamix_core.learning.transforms import normalise


class Network(nn.Module):
    """An encoder from pixels to embeddings, and a linear head from embeddings to logits.

    Attributes:
        encoder: from normalised (n, C, size, size) float32 to (n, D).
        head: nn.Linear, D to K.
    """

    def __init__(
        self, encoder: nn.Module, embedding_size: int, classes: int, *, repeat_grey: bool, dropout: float = 0.0
    ) -> None:
        """Put a fresh head on an encoder.

        Args:
            encoder: of pixels, see above.
            embedding_size: D, what it returns.
            classes: K.
            repeat_grey: the encoder wants three channels, also of grey images.
            dropout: share of the embedding that is dropped before the head, in training and in Monte-Carlo passes.
        """
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embedding_size, classes)
        self._repeat_grey = repeat_grey

    @property
    def embedding_size(self) -> int:
        """D."""
        return self.head.in_features

    def embed(self, images_nCSS: Tensor) -> Tensor:
        """Return the embeddings (n, D) of (n, C, size, size) uint8 images."""
        if self._repeat_grey and images_nCSS.shape[1] == 1:
            images_nCSS = images_nCSS.expand(-1, 3, -1, -1)
        embeddings: Tensor = self.encoder(normalise(images_nCSS))
        return embeddings

    def forward(self, images_nCSS: Tensor) -> Tensor:
        """Return the logits (n, K) of (n, C, size, size) uint8 images."""
        logits: Tensor = self.head(self.dropout(self.embed(images_nCSS)))
        return logits

    def linear_head(self) -> LinearHead:
        """Return a copy of the head's numbers, on the CPU, as acquisition takes them."""
        return LinearHead(self.head.weight.detach().cpu().clone(), self.head.bias.detach().cpu().clone())
