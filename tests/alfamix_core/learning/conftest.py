"""Real image files and what reads them."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from alfamix_core.errors import SampleError
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.training import Examples
from alfamix_core.records.project import ImageSettings


class FileReader:
    """Reads files of the local disk; a uri is a path."""

    def read(self, uri: str) -> bytes:
        try:
            return Path(uri).read_bytes()
        except FileNotFoundError:
            raise SampleError("there is no such file") from None


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1797 digits of 8 x 8 pixels as PNG files, in a fixed random order."""

    uris: list[str]
    labels_n: Tensor

    def images(
        self, rows: range, size: int = 8, channels: str = "grey", cache_bytes: int = 2**30, workers: int = 0
    ) -> SampleImages:
        return SampleImages(
            FileReader(),
            [f"{row:04d}" for row in rows],
            [self.uris[row] for row in rows],
            ImageSettings(size=size, channels=channels),
            max_pixels=1_000_000,
            cache_bytes=cache_bytes,
            workers=workers,
        )

    def examples(self, rows: range, size: int = 8, cache_bytes: int = 2**30) -> Examples:
        return Examples(self.images(rows, size, cache_bytes=cache_bytes), self.labels_n[list(rows)])


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(1)).tolist()
    uris = []
    for place, row in enumerate(order):
        path = folder / f"{place:04d}.png"
        Image.fromarray((bunch.images[row] * 15.9375).astype("uint8")).save(path)
        uris.append(str(path))
    return Digits(uris, torch.tensor(bunch.target[order], dtype=torch.int64))


@pytest.fixture(scope="session")
def reader() -> FileReader:
    return FileReader()


@pytest.fixture
def photo() -> Image.Image:
    """24 x 16 pixels of colour, different in every corner."""
    picture = Image.new("RGB", (24, 16))
    picture.putdata([(10 * x, 15 * y, (x * y) % 256) for y in range(16) for x in range(24)])
    return picture


@pytest.fixture
def as_file():
    def save(picture: Image.Image, kind: str, **options: object) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        return stream.getvalue()

    return save
