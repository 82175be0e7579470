"""The model: an encoder and a linear head."""

from torch import Tensor, nn

from alfamix_core.learning.scaling import scaled
from alfamix_core.learning.transforms import normalise
from alfamix_core.records.model import FeatureScaling, PixelStatistics


class Network(nn.Module):
    """An encoder from pixels to embeddings, and a linear head from embeddings to logits.

    Attributes:
        encoder: Module from normalised pixels (n, C, size, size) float32 to its output (n, D).
        head: nn.Linear from D to K.
        pixels: Numbers by which pixels are normalised.
        features: Scaling of the encoder's output to embeddings; None if they are the same.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_size: int,
        classes: int,
        *,
        pixels: PixelStatistics,
        repeat_grey: bool,
        dropout: float = 0.0,
    ) -> None:
        """Add a new head to an encoder.

        Args:
            encoder: Encoder of pixels, as above.
            embedding_size: Size of an embedding, D.
            classes: Number of classes, K.
            pixels: Numbers by which pixels are normalised.
            repeat_grey: Whether the encoder needs three channels even for grey images.
            dropout: Share of the embedding that is dropped before the head, in training and in Monte-Carlo passes.
        """
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embedding_size, classes)
        self.pixels = pixels
        self.features: FeatureScaling | None = None
        self._repeat_grey = repeat_grey

    @property
    def embedding_size(self) -> int:
        """Size of an embedding, D."""
        return self.head.in_features

    def encode(self, images_nCSS: Tensor) -> Tensor:
        """Return the encoder's output (n, D) for (n, C, size, size) uint8 images."""
        if self._repeat_grey and images_nCSS.shape[1] == 1:
            images_nCSS = images_nCSS.expand(-1, 3, -1, -1)
        output: Tensor = self.encoder(normalise(images_nCSS, self.pixels))
        return output

    def embed(self, images_nCSS: Tensor) -> Tensor:
        """Return the embeddings (n, D) of (n, C, size, size) uint8 images."""
        return scaled(self.encode(images_nCSS), self.features)

    def forward(self, images_nCSS: Tensor) -> Tensor:
        """Return the logits (n, K) of (n, C, size, size) uint8 images."""
        logits: Tensor = self.head(self.dropout(self.embed(images_nCSS)))
        return logits
