"""Features of frozen encoders, which are computed once and kept in the project."""

import hashlib
import json
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.learning.images import DECODING
from alfamix_core.learning.network import Network
from alfamix_core.records.feature_parts import list_parts, read_part, write_part
from alfamix_core.records.project import ImageSettings, ModelSettings
from alfamix_core.storage import Store
from alfamix_core.telemetry.events import emit

PART_BYTES = 16 * 2**20
PART_SECONDS = 60.0
_DIGITS = 32  # of each digest, in hex


def identity(network: Network, model: ModelSettings, image: ImageSettings) -> str:
    """Return the name of an encoder: digest of its weights, digest of its preprocessing, dtype of what it computes.

    Two encoders with one name give a file the same output, up to the rounding of another machine, thread count, library
    version or batch size.
    """
    weights = hashlib.sha256(model.backbone.encode())
    for name, value in sorted(network.encoder.state_dict().items()):
        weights.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        # bytes, since numpy has no bfloat16
        weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    facts = {
        "decoding": DECODING,
        "size": image.size,
        "channels": image.channels,
        "pixels": network.pixels.model_dump(mode="json"),
    }
    preprocessing = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    return f"{weights.hexdigest()[:_DIGITS]}-{preprocessing.hexdigest()[:_DIGITS]}-{model.embedding_dtype}"


class KeptFeatures:
    """The kept outputs of one encoder. Any number of processes may read and add: a part is written once, whole.

    A sample that two parts hold counts as in the first of them by name.

    Attributes:
        encoder: Identity of the encoder.
    """

    def __init__(
        self, store: Store, root: str, encoder: str, part_bytes: int = PART_BYTES, part_seconds: float = PART_SECONDS
    ) -> None:
        """Prepare to read and add.

        Args:
            store: Store of the project.
            root: Folder of all encoders' features, with its slash.
            encoder: Identity of the encoder.
            part_bytes: Size of the outputs from which a part is written.
            part_seconds: Time after which a part is written, whatever its size; a kill loses no more than this.
        """
        self.encoder = encoder
        self._store = store
        self._folder = f"{root}{encoder}/"
        self._part_bytes = part_bytes
        self._part_seconds = part_seconds
        self._ids: list[str] = []
        self._outputs: list[Tensor] = []
        self._since = 0.0

    def read(self, sample_ids: Sequence[str], output_nD: Tensor) -> Tensor:
        """Fill in the outputs that are kept, and return which these are.

        A damaged part costs a warning, and its samples count as unknown.

        Args:
            sample_ids: Ids of n samples.
            output_nD: (n, D), changed in place; its dtype is the encoder's.

        Returns:
            (n,) bool, True where a row was filled in.

        Raises:
            StorageError: The store does not answer.
        """
        known_n = torch.zeros(len(sample_ids), dtype=torch.bool)
        if not sample_ids:
            return known_n
        wanted = pa.array(sample_ids, pa.string())
        least, greatest = min(sample_ids, key=str.encode), max(sample_ids, key=str.encode)
        width = output_nD.shape[1] * output_nD.element_size()
        for part in list_parts(self._store, self._folder):
            if not part.may_hold(least, greatest):
                continue
            try:
                table = read_part(self._store, part, width)
            except MissingObjectError:
                continue  # `alfamix clean` removed it since the listing
            except InputError as error:
                emit("warning", text=f"{error}; its samples are computed again")
                continue
            place_m = pc.index_in(table["sample_id"].combine_chunks(), value_set=wanted)
            rows = pc.indices_nonzero(pc.is_valid(place_m)).to_pylist()
            index_m = torch.tensor(place_m.drop_null().to_pylist(), dtype=torch.int64)
            output_mD = _outputs(table, output_nD.dtype)[rows]
            new_m = ~known_n[index_m]
            output_nD[index_m[new_m]] = output_mD[new_m]
            known_n[index_m] = True
        return known_n

    def add(self, sample_ids: Sequence[str], output_mD: Tensor) -> None:
        """Keep the outputs of samples; they are in the project once a part is full, or after ``close``."""
        if not sample_ids:
            return
        if not self._ids:
            self._since = time.monotonic()
        self._ids += sample_ids
        self._outputs.append(output_mD.cpu())
        size = sum(block.nbytes for block in self._outputs)
        if size >= self._part_bytes or time.monotonic() - self._since >= self._part_seconds:
            self.close()

    def close(self) -> None:
        """Write what was added and is not written yet."""
        if self._ids:
            output = torch.cat(self._outputs).contiguous().view(torch.uint8).numpy().tobytes()
            write_part(self._store, self._folder, self._ids, output)
        self._ids, self._outputs = [], []


def kept_features(
    store: Store, root: str, network: Network, model: ModelSettings, image: ImageSettings
) -> KeptFeatures | None:
    """Return the kept features of a network's encoder; None if training changes it in every round.

    Args:
        store: Store of the project.
        root: Folder of all encoders' features, with its slash.
        network: Network that the settings describe.
        model: Settings of the model.
        image: Settings of its input.
    """
    return KeptFeatures(store, root, identity(network, model, image)) if model.encoder == "frozen" else None


def _outputs(table: pa.Table, dtype: torch.dtype) -> Tensor:
    column = table["output"].combine_chunks()
    width = column.type.byte_width
    data = bytearray(memoryview(column.buffers()[1])[column.offset * width :][: len(column) * width])
    return torch.frombuffer(data, dtype=dtype).reshape(len(column), -1)
