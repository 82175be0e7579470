"""What a stage reads for a sample is the sample's file, and nothing that a symbolic link leads to elsewhere."""

import torch
from PIL import Image

from alfamix_core.learning.samples import images
from alfamix_core.project import layout, rounds
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.round import number_of
from alfamix_core.records.snapshot import read_pool, read_roots
from components.snapshot import stage as snapshot


def test_a_sample_that_is_a_link_out_of_the_project_is_quarantined_and_the_others_are_read(birds, tmp_path):
    private = tmp_path / "home" / "passport.png"
    private.parent.mkdir()
    Image.new("L", (8, 8), 200).save(private)
    drop = tmp_path / "birds" / layout.drop("a")
    drop.mkdir(parents=True)
    Image.new("L", (8, 8), 100).save(drop / "plain.png")
    (drop / "inside.png").symlink_to("plain.png")
    (drop / "outside.png").symlink_to(private)
    (drop / "folder").symlink_to(private.parent)
    uris = ("plain.png", "inside.png", "outside.png", "folder/passport.png")
    lines = [ManifestLine(uri=uri, id=f"{place}").json_line() for place, uri in enumerate(uris)]
    birds.store.create(layout.manifest("a"), b"".join(lines))
    key = birds.ingest("run-1")
    snapshot.run(birds.uri, key, str(tmp_path / "snapshot"), str(tmp_path / "champion"))
    settings = rounds.read(birds.store, number_of(key))[0].settings
    roots = read_roots(tmp_path / "snapshot", settings)
    assert roots == (birds.uri,)
    found = images(read_pool(tmp_path / "snapshot"), settings, roots)
    for _ in found.batches(4, torch.arange(4)):
        pass
    reasons = {bad.sample_id: bad.reason for bad in found.quarantined()}
    leads = f"is a symbolic link that leads outside, to {private}; only {tmp_path}/birds may be read"
    assert reasons == {"2": f"{drop}/outside.png {leads}", "3": f"{drop}/folder {leads}"}
