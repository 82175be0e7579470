"""Choose the samples to be labelled in this round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from alfamix_core.acquisition import policy
from alfamix_core.acquisition.policy import Choice
from alfamix_core.acquisition.rows import Column, Rows
from alfamix_core.acquisition.types import Scores
from alfamix_core.choosing import batch_rules
from alfamix_core.choosing.decision import Decision, load_decision
from alfamix_core.errors import SampleError
from alfamix_core.evaluation import drift
from alfamix_core.evaluation.plane import principal_plane
from alfamix_core.learning import device, model_folder
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.samples import images, reader
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records import selection
from alfamix_core.records.features import SLICE_FILE, SUMS_FILE
from alfamix_core.records.project import Project
from alfamix_core.records.query import ChosenSample
from alfamix_core.records.round import Round
from alfamix_core.records.scores import read_scores
from alfamix_core.records.selection import PlacedSample, Selection
from alfamix_core.records.snapshot import read_audit, read_labelled, read_pool, read_roots, read_round, take
from alfamix_core.reports.thumbnails import thumbnail
from alfamix_core.telemetry.events import Progress

_LABELLED_ON_MAP = 2_000
_SCORES_SHOWN = 10_000


def run(
    snapshot_path: str, model_path: str, labelled_path: str, scores_paths: Sequence[str], queries_path: str
) -> None:
    """Write the round's queries and what the report shows about them.

    Args:
        snapshot_path: Folder of the round's snapshot.
        model_path: Folder of the round's model.
        labelled_path: Folder of the training samples' features.
        scores_paths: Folders of all shards' scores, in any order.
        queries_path: Folder to write, see ``records.selection``.

    Raises:
        InputError: The strategy or one of its parameters is unknown.
    """
    snapshot, model, folder = Path(snapshot_path), Path(model_path), Path(queries_path)
    shards = [Path(path) for path in scores_paths]
    with StageMeter("select", consumed=shards, outputs=[folder], device=device.choose()) as meter:
        record = read_round(snapshot)
        decision = load_decision(record, model, Path(labelled_path), device.choose())
        scores = _on(decision.device, Scores.merge([read_scores(path) for path in shards]))
        pool, audit = read_pool(snapshot), read_audit(snapshot)
        choice = _choose(decision, scores, pool, record, record.settings.budget - audit.num_rows)
        questions = take(pool, [query.position for query in choice.queries]).select(audit.column_names)
        roots = read_roots(snapshot, record.settings)
        samples = images(pa.concat_tables([questions, audit]), record.settings, roots)
        described = _describe(choice, samples, model, decision, record.settings)
        chosen = [sample for sample, _ in described]
        placed = _map(shards, described, snapshot, decision, record.settings)
        account = _account(decision, scores, choice, shards, placed, record.settings)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / selection.QUERIES_FILE).write_bytes(b"".join(sample.json_line() for sample in chosen))
        (folder / selection.SELECTION_FILE).write_bytes(account.document())
        _write_thumbnails(folder / selection.THUMBNAILS, chosen, record.settings, roots)
        meter.rows = len(scores)
        meter.add(samples)


def _choose(decision: Decision, scores: Scores, pool: pa.Table, record: Round, budget: int) -> Choice:
    settings = record.settings
    groups = take(pool, scores.positions_n.tolist())["group"]
    return policy.choose(
        decision.strategy,
        scores,
        decision.state,
        budget,
        torch.Generator().manual_seed(record.seed),
        reach=batch_rules.reach(settings),
        constraints=batch_rules.constraints(scores, groups, settings, decision.labelled),
    )


def _account(
    decision: Decision,
    scores: Scores,
    choice: Choice,
    shards: Sequence[Path],
    placed: tuple[PlacedSample, ...],
    settings: Project,
) -> Selection:
    """Return what the report shows about the choice."""
    finite_n = scores.scores_n[scores.scores_n.isfinite()].sort(descending=True).values[:_SCORES_SHOWN]
    sums = drift.total(drift.ShardSums.from_tensors(load_file(path / SUMS_FILE)) for path in shards)
    shares = drift.shares(sums.predicted_K) if decision.trained else ()
    return Selection(
        strategy=decision.strategy.name,
        short_by=choice.short_by,
        reason=choice.reason,
        summary=decision.strategy.summary(scores, decision.state, len(choice.queries) + choice.short_by),
        candidate_scores=tuple(finite_n.tolist()),
        embedding_distance=drift.distance(sums.new, drift.Moments.of(decision.labelled.embeddings_LD.cpu())),
        predicted_shares=dict(zip(settings.classes, shares, strict=False)),
        map=placed,
    )


def _on(device: torch.device, scores: Scores) -> Scores:
    """Return the scores on the device; of a mapped column, only the rows that are taken move there."""
    if device.type == "cpu":
        return scores
    rows: dict[str, Column] = {
        name: column.on(device) if isinstance(column, Rows) else column.to(device)
        for name, column in scores.rows.items()
    }
    return Scores(scores.positions_n.to(device), scores.scores_n.to(device), rows)


def _describe(
    choice: Choice, samples: SampleImages, model: Path, decision: Decision, settings: Project
) -> list[tuple[ChosenSample, Tensor]]:
    """Return the queries with the model's view of each, and their embeddings (D,).

    Args:
        choice: The strategy's choice, best first.
        samples: Images of the choice, then of the audit reserve, whose unreadable samples are left out.
        model: Folder of the round's model.
        decision: Prepared strategy of the round.
        settings: Settings of the project.
    """
    network, _ = model_folder.load(model, settings)
    predicted: dict[int, tuple[Tensor, Tensor]] = {}
    for block in embed(
        network,
        samples,
        batch_size=settings.model.embedding_batch,
        dtype=settings.model.embedding_dtype,
        device=decision.device,
    ):
        for row, index in enumerate(block.index_n.tolist()):
            predicted[index] = block.embeddings_nD[row], block.logits_nK[row]
    described: list[tuple[ChosenSample, Tensor]] = []
    for index, (sample_id, uri) in enumerate(samples.listed()):
        query = choice.queries[index] if index < len(choice.queries) else None
        if query is None and index not in predicted:
            continue
        # a file may have become unreadable since it was embedded
        embedding_D, logits_K = predicted.get(index, (torch.zeros(network.embedding_size), None))
        suggestion, confidence = "", None
        if logits_K is not None and decision.trained:
            best = int(logits_K.argmax())
            suggestion, confidence = settings.classes[best], float(logits_K.double().softmax(0)[best])
        explanation = "from the audit reserve" if query is None else ""
        if query is not None and suggestion:
            explanation = decision.explain(embedding_D, query.score, settings.classes)
        sample = ChosenSample(
            rank=len(described),
            position=query.position if query else None,
            sample_id=sample_id,
            uri=uri,
            score=query.score if query and query.score > float("-inf") else None,
            suggestion=suggestion,
            confidence=confidence,
            audit=query is None,
            explanation=explanation,
        )
        described.append((sample, embedding_D))
    return described


def _write_thumbnails(folder: Path, chosen: Sequence[ChosenSample], settings: Project, roots: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    source, limits = reader(settings, roots), settings.limits
    progress = Progress("select", "", "thumbnails")
    for done, sample in enumerate(chosen, start=1):
        try:
            picture = thumbnail(source.read(sample.uri), max_pixels=limits.max_pixels, max_scans=limits.max_scans)
        except SampleError:
            continue
        (folder / f"{sample.sample_id}.webp").write_bytes(picture)
        progress(done, len(chosen))


def _map(
    shards: Sequence[Path],
    chosen: Sequence[tuple[ChosenSample, Tensor]],
    snapshot: Path,
    decision: Decision,
    settings: Project,
) -> tuple[PlacedSample, ...]:
    """Place a slice of the pool, a slice of the labelled samples, and all queries on one plane."""
    pool, table = read_pool(snapshot), read_labelled(snapshot)
    queried = {sample.position for sample, _ in chosen}
    parts = [load_file(path / SLICE_FILE) for path in shards]
    positions_n = torch.cat([part["positions"] for part in parts])
    slice_nD = torch.cat([part["embeddings"] for part in parts])
    order_n = positions_n.argsort(stable=True)
    order_n = order_n[torch.tensor([int(positions_n[row]) not in queried for row in order_n], dtype=torch.bool)]
    step = -(-max(len(decision.labelled), 1) // _LABELLED_ON_MAP)
    labelled_nD = decision.labelled.embeddings_LD[::step].cpu()
    names = [settings.classes[label] for label in decision.labelled.labels_L[::step].tolist()]
    labelled_ids = [table["sample_id"][row].as_py() for row in decision.labelled_rows_L[::step].tolist()]
    dtype = slice_nD.dtype
    embeddings_nD = torch.cat([slice_nD[order_n], labelled_nD.to(dtype), *(e[None].to(dtype) for _, e in chosen)])
    plane_n2 = principal_plane(embeddings_nD).tolist()
    predicted = decision.head(slice_nD[order_n].float().to(decision.device)).argmax(dim=1).tolist()
    points: list[tuple[str, Literal["pool", "labelled", "queried"], str]] = [
        (pool["sample_id"][int(position)].as_py(), "pool", settings.classes[best] if decision.trained else "")
        for position, best in zip(positions_n[order_n].tolist(), predicted, strict=True)
    ]
    points += [(sample_id, "labelled", name) for sample_id, name in zip(labelled_ids, names, strict=True)]
    points += [(sample.sample_id, "queried", sample.suggestion) for sample, _ in chosen]
    return tuple(
        PlacedSample(sample_id=sample_id, kind=kind, x=round(x, 6), y=round(y, 6), name=name)
        for (sample_id, kind, name), (x, y) in zip(points, plane_n2, strict=True)
    )
