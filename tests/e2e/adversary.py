"""What others may do to a project while it works, each act a function that returns one line about what it did.

Nothing here asks the project for permission: files of the inbox change behind its back, commands start where others
run, and clocks move. Stages that stop before a write are ``stage_server``'s.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from alfamix_core.storage import path_of

ROOT = Path(__file__).parents[2]
INBOX = ("drops/", "labels/", "withdrawn/", "released/")
CLASSES = [str(digit) for digit in range(10)]
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"  # Debian's package faketime


class Inbox:
    """The inbox as a supplier reaches it who knows none of the rules: files of a disk, or objects of a bucket.

    Attributes:
        contents: every content that a file ever had, by its SHA-256.
    """

    def __init__(self, project_uri: str):
        self.contents: dict[str, bytes] = {}
        self._folder = path_of(project_uri) if project_uri.startswith("file:") else None
        if self._folder is None:
            import boto3

            address = urlsplit(project_uri)
            self._bucket, self._prefix = address.netloc, address.path.strip("/") + "/"
            self._client = boto3.client("s3")

    def keys(self) -> list[str]:
        """Return the keys of all files, sorted."""
        if self._folder is not None:
            keys = (path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())
        else:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            keys = (item["Key"].removeprefix(self._prefix) for page in pages for item in page.get("Contents", ()))
        return sorted(key for key in keys if key.startswith(INBOX) and key.endswith(".jsonl"))

    def read(self, key: str) -> bytes:
        """Return a file's content."""
        if self._folder is not None:
            data = (self._folder / key).read_bytes()
        else:
            data = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        self.contents[hashlib.sha256(data).hexdigest()] = data
        return data

    def write(self, key: str, data: bytes) -> None:
        """Create or replace a file."""
        self.contents[hashlib.sha256(data).hexdigest()] = data
        if self._folder is not None:
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            # renamed, so that no reader sees a half of it, which ``contents`` would not have
            beside = self._folder.parent / f"delivery-{os.getpid()}"
            beside.write_bytes(data)
            beside.replace(path)
        else:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def delete(self, key: str) -> None:
        """Remove a file."""
        if self._folder is not None:
            (self._folder / key).unlink()
        else:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def files(self) -> dict[str, bytes]:
        """Return the whole inbox."""
        return {key: self.read(key) for key in self.keys()}


@dataclass
class Vandal:
    """A supplier who changes files of the inbox.

    Attributes:
        inbox: the inbox.
        random: source of what is done to which file.
        samples: ids of samples about which answers are delivered.
    """

    inbox: Inbox
    random: random.Random
    samples: list[str]
    _count: int = 0

    def append(self) -> str:
        """Add lines to the end of a file, of which one may be cut off in its middle."""
        key = self._any()
        data = self.inbox.read(key)
        data += b"" if data.endswith(b"\n") or not data else b"\n"
        more = b"".join(self._line(key) for _ in range(self.random.randint(1, 3)))
        cut = self.random.choice([0, 0, 0, 7])
        self.inbox.write(key, data + (more[:-cut] if cut else more))
        return f"append to {key}{', the last line cut' if cut else ''}"

    def truncate(self) -> str:
        """Cut a file anywhere, or between two of its lines."""
        key = self._any()
        data = self.inbox.read(key)
        lines = data.splitlines(keepends=True)
        if self.random.random() < 0.5:
            kept = b"".join(lines[: self.random.randint(0, len(lines))])
        else:
            kept = data[: self.random.randint(0, len(data))]
        self.inbox.write(key, kept)
        return f"truncate {key} from {len(data)} to {len(kept)} bytes"

    def replace(self) -> str:
        """Put other lines in the place of some, of the same length where a label changes."""
        key = self._any()
        lines = self.inbox.read(key).splitlines(keepends=True)
        for index in range(len(lines)):
            if self.random.random() < 0.3:
                lines[index] = self._changed(lines[index], key)
        self.inbox.write(key, b"".join(lines))
        return f"replace lines of {key}"

    def delete(self) -> str:
        """Remove a file."""
        key = self._any()
        self.inbox.read(key)
        self.inbox.delete(key)
        return f"delete {key}"

    def repair(self) -> str:
        """Deliver valid lines under the key of a file that was damaged, or a new one."""
        key = self._any()
        good = [line for line in self.inbox.read(key).splitlines(keepends=True) if _is_json(line)]
        self.inbox.write(key, b"".join(good) + self._line(key))
        return f"repair {key}"

    def repeat_event_ids(self) -> str:
        """Deliver the answers of two annotators who both number their events from 1."""
        self._count += 1
        for who in ("ann", "bob"):
            chosen = self.random.sample(self.samples, min(3, len(self.samples)))
            lines = (self._event(name, who, str(number)) for number, name in enumerate(chosen, start=1))
            self.inbox.write(f"labels/{who}/{self._count:03}.jsonl", b"".join(lines))
        return "two annotators number from 1"

    def misdate(self) -> str:
        """Deliver answers of an annotator whose clock is years ahead, or years behind."""
        self._count += 1
        chosen = self.random.sample(self.samples, min(3, len(self.samples)))
        lines = (
            self._event(name, "eve", f"misdated-{self._count}", self.random.choice([2020, 2035])) for name in chosen
        )
        self.inbox.write(f"labels/misdated-{self._count:03}.jsonl", b"".join(lines))
        return "answers from another year"

    def withdraw_and_release(self) -> str:
        """Withdraw a sample, and release one that was never in quarantine."""
        self._count += 1
        now = datetime.now(UTC).isoformat()
        gone, free = self.random.sample(self.samples, 2)
        self.inbox.write(f"withdrawn/{self._count:03}.jsonl", _line({"sample_id": gone, "time": now}))
        self.inbox.write(f"released/{self._count:03}.jsonl", _line({"sample_id": free, "round": 1, "time": now}))
        return f"withdraw {gone}"

    def _any(self) -> str:
        """Return the key of a file; there is one, because the project has samples."""
        keys = self.inbox.keys()
        if not keys:
            self.inbox.write("labels/first.jsonl", self._line("labels/first.jsonl"))
            keys = self.inbox.keys()
        kind = self.random.choice(sorted({key.split("/")[0] for key in keys}))
        return self.random.choice([key for key in keys if key.startswith(f"{kind}/")])

    def _line(self, key: str) -> bytes:
        """Return a new valid line for a file."""
        self._count += 1
        name, now = self.random.choice(self.samples), datetime.now(UTC).isoformat()
        if key.startswith("drops/"):
            return _line({"uri": f"missing-{self._count}.png", "id": f"missing-{self._count}", "split": "val"})
        if key.startswith("labels/"):
            return self._event(name, self.random.choice(["ann", "bob", "eve"]), f"vandal-{self._count}")
        if key.startswith("withdrawn/"):
            return _line({"sample_id": name, "time": now})
        return _line({"sample_id": name, "round": self.random.randint(1, 9), "time": now})

    def _event(self, name: str, who: str, event_id: str, year: int = 0) -> bytes:
        kind = self.random.choice(["label", "label", "label", "label", "skip", "withdraw"])
        label = {"label": self.random.choice(CLASSES)} if kind == "label" else {}
        time = datetime.now(UTC).replace(**({"year": year} if year else {})).isoformat()
        return _line(
            {
                **{"event_id": event_id, "sample_id": name, "kind": kind, "annotator": who, "time": time},
                **{"round": self.random.randint(0, 3), **label},
            }
        )

    def _changed(self, line: bytes, key: str) -> bytes:
        if self.random.random() < 0.3 or not _is_json(line):
            return self._line(key)
        record = json.loads(line)
        if record.get("label") in CLASSES:
            record["label"] = self.random.choice(CLASSES)
        return _line(record)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _line(record: dict[str, object]) -> bytes:
    return (json.dumps(record) + "\n").encode()


def write_pictures(folder: Path, names: Iterable[str], common: int) -> Path:
    """Write a folder of small pictures; those numbered below ``common`` are the same in every such folder."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        seed = number if number < common else int(hashlib.sha256(f"{folder}/{name}".encode()).hexdigest()[:8], 16)
        pixels = random.Random(seed).randbytes(64)
        Image.frombytes("L", (8, 8), pixels).save(folder / f"{name}.png")
    return folder


def together(*acts: Callable[[], object]) -> list[object]:
    """Do several acts at the same time; return what they returned."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(act) for act in acts]]


def run_elsewhere(project_uri: str, environment: dict[str, str]) -> tuple[int, str]:
    """Start a second round in another PID namespace, whose host has the same name; return its status and last line."""
    done = subprocess.run(
        [
            *("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"),
            *(sys.executable, "-m", "pipelines.cli", "round", project_uri),
        ],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


@dataclass
class Clock:
    """The clock of other processes, moved by libfaketime while they run.

    Attributes:
        path: file that says by how much.
        environment: what a process needs to have this clock.
    """

    path: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self):
        self.move(0)
        self.environment = {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # waiting would never end
        }

    def move(self, seconds: int) -> str:
        """Move the clock to this distance from the true time, in seconds."""
        self.path.write_text(f"{seconds:+d}\n")
        return f"clock {seconds:+d} s"
