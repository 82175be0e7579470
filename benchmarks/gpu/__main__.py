"""`make gpu`: test acquisition on this machine's GPU and measure it, in less than nine minutes.

    python3 -m benchmarks.gpu                      all of it; benchmarks/gpu.json is written after each part
    python3 -m benchmarks.gpu --small              the same at the size of a test, on the CPU where there is no GPU
    python3 -m benchmarks.gpu --parts scoring      some of it; what the file holds of other parts stays

Python needs torch and pytest; whatever else is missing is skipped and named. Each part is a process of its own with a
time limit, so none can take the time of the others.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "gpu.json"
SECONDS = {"tests": 190, "scoring": 80, "k-means": 50, "coreset": 60, "badge": 60, "bait": 60, "uherding": 40}
"""Time limit of each part, in seconds; the tests' includes collecting them."""
_RATES_SECONDS = 60
_COLLECT_SECONDS = 25


def _say(started: float, words: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {words}", flush=True)


def _environment(device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        memory = round(properties.total_memory / 2**30, 1)
        facts |= {"device": properties.name, "memory_gib": memory, "cuda": torch.version.cuda}
    else:
        facts |= {"device": "CPU", "cores": os.cpu_count()}
    return facts


def _lines(command: Sequence[str], limit: float, error: Path) -> Iterator[dict[str, Any]]:
    """Run a process and yield each line of its output, a JSON object, as it comes.

    Raises:
        TimeoutError: it ran for ``limit`` seconds; it is dead.
        ChildProcessError: It failed; the end of its output is the message.
    """
    with error.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        deadline, left = time.monotonic() + limit, b""
        try:
            while True:
                code = process.poll()
                left += process.stdout.read() or b""
                *whole, left = left.split(b"\n")
                for line in whole:
                    with contextlib.suppress(json.JSONDecodeError):
                        yield json.loads(line)
                if code is not None:
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"stopped after {limit:.0f} s")
                time.sleep(0.05)
        finally:
            process.kill()
    if code:
        raise ChildProcessError(
            f"exit status {code}: " + " | ".join(error.read_text().strip().splitlines()[-3:])[-600:]
        )


def _part(name: str, options: argparse.Namespace, limit: float, folder: Path, started: float) -> dict[str, Any]:
    """Run one part of the benchmark, and return its lines and its outcome."""
    command = [sys.executable, "-m", "benchmarks.gpu.parts", name, "--device", options.device]
    command += ["--rates", str(folder / "rates.json")] if name != "rates" else []
    command += ["--small"] if options.small else []
    lines: list[dict[str, Any]] = []
    try:
        for line in _lines(command, limit, folder / f"{name}.log"):
            lines.append(line)
            if "what" in line:
                shares = f"products {line['products']:.0%}, moves {line['moves']:.0%}"
                numbers = f"{line['seconds']:.4f} s, {shares}, {line['peak_gib']:.1f} GiB, {line['note']}"
                _say(started, f"{line['what']}, {line['size']}: {numbers}")
    except (TimeoutError, ChildProcessError) as error:
        _say(started, f"{name}: {error}")
        return {"lines": lines, "ended": str(error)}
    return {"lines": lines, "ended": "done" if lines else "nothing to measure"}


def _tests(options: argparse.Namespace, limit: float, folder: Path, started: float) -> dict[str, Any]:
    """Run the tests in a few processes side by side, and return the number that passed, and those that did not."""
    count = 1 if options.small else max(1, min(4, (os.cpu_count() or 2) // 3))
    paths = ["tests/alfamix_core/acquisition/test_blocks.py"] if options.small else []
    processes = []
    for number in range(count):
        command = [sys.executable, "-m", "benchmarks.gpu.checks", "--device", options.device]
        command += ["--share", f"{number}/{count}", "--seconds", str(max(1.0, limit - _COLLECT_SECONDS))]
        command += ["--to", str(folder / f"outcomes-{number}.jsonl"), *paths]
        threads = {"OMP_NUM_THREADS": "2", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        log = (folder / f"tests-{number}.log").open("w")
        processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **threads}))
        log.close()
    deadline = time.monotonic() + limit
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
    lines = []
    for number in range(count):
        file = folder / f"outcomes-{number}.jsonl"
        text = file.read_text() if file.exists() else ""
        lines += [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        if not text:
            _say(started, f"tests: {(folder / f'tests-{number}.log').read_text()[-800:]}")
    return _outcomes(lines, started)


def _outcomes(lines: list[dict[str, Any]], started: float) -> dict[str, Any]:
    tests = [line for line in lines if "outcome" in line]
    failed = [line for line in tests if line["outcome"] == "failed"]
    # for a module that is skipped as a whole pytest prints the line number too
    reasons = (line["words"].rsplit("Skipped: ", 1)[-1].rstrip("')") for line in tests if line["outcome"] == "skipped")
    skipped = Counter(reasons)
    passed = sum(line["outcome"] == "passed" for line in tests)
    _say(started, f"tests: {passed} passed, {len(failed)} failed")
    for line in failed:
        _say(started, f"  failed: {line['test']}: {line['words']}")
    for words, count in skipped.items():
        _say(started, f"  skipped {count}: {words}")
    collected = sum(line.get("collected", 0) for line in lines)
    # a module that is skipped as a whole is a line of its own, and no test of it was collected
    ended = "done" if collected and len(tests) >= collected else f"{len(tests)} of {collected} tests ran"
    return {"passed": passed, "failed": failed, "skipped": dict(skipped), "ended": ended}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description="Test and measure on a GPU.")
    parser.add_argument("--parts", nargs="+", choices=list(SECONDS), default=list(SECONDS), help="default: all")
    parser.add_argument("--seconds", type=float, default=500, help="limit of all parts together (default 500)")
    parser.add_argument("--small", action="store_true", help="sizes of a test; a minute on a CPU")
    parser.add_argument("--to", type=Path, default=RESULTS, help="results (default benchmarks/gpu.json)")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda if there is one, else the CPU, small")
    options = parser.parse_args(arguments)
    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cpu" and not options.small:
        print("no CUDA GPU is available: the CPU runs a small size; its numbers go nowhere", flush=True)
        options.small = True
    if options.small and options.to == RESULTS:
        options.to = Path(tempfile.gettempdir()) / "alfamix-gpu-small.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return 0 if every part ended by itself and no test failed, else 1."""
    options, started = _options(arguments), time.monotonic()
    environment = _environment(options.device)
    results: dict[str, Any] = {"environment": environment, "small": options.small, "parts": {}}
    if options.to.exists():
        earlier = json.loads(options.to.read_text())
        if earlier["environment"] == environment and earlier["small"] == options.small:
            results = earlier
    _say(started, "; ".join(f"{key} {value}" for key, value in environment.items()))
    with tempfile.TemporaryDirectory(prefix="alfamix-gpu-") as work:
        folder = Path(work)
        rates = _part("rates", options, _RATES_SECONDS, folder, started)
        if rates["ended"] != "done":
            return 1
        results["rates"] = rates["lines"][0]
        (folder / "rates.json").write_text(json.dumps(results["rates"]))
        _say(started, ", ".join(f"{key} {value / 1e12:.2f} T/s" for key, value in results["rates"].items()))
        for name in options.parts:
            limit = min(SECONDS[name], options.seconds - (time.monotonic() - started))
            if limit < 5:
                _say(started, f"{name}: no time is left")
                continue
            _say(started, f"{name}, {limit:.0f} s at most")
            run = _tests(options, limit, folder, started) if name == "tests" else None
            results["parts"][name] = run or _part(name, options, limit, folder, started)
            options.to.write_text(json.dumps(results, indent=1) + "\n")
    _say(started, f"results: {options.to}")
    return 0 if all(part["ended"] in _FINE for part in results["parts"].values()) else 1


_FINE = ("done", "nothing to measure")

if __name__ == "__main__":
    sys.exit(main())
