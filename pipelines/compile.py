"""Write the round's pipeline as the YAML that a Kubeflow cluster runs.

    python -m pipelines.compile [--settings FILE] [--digests FILE] [--to FILE]

writes, without any option, pipelines/round.yaml: the defaults, images by this version's tag. With settings or digests
it writes dist/alfamix-round-<version>.yaml. It needs kfp and neither torch nor boto3.
"""

import argparse
import sys
from pathlib import Path

from kfp import compiler

from alfamix_core import __version__
from alfamix_core.errors import AlfamixError, InputError
from pipelines import platform_settings
from pipelines.platform_settings import PlatformSettings
from pipelines.round import build

GOLDEN = Path(__file__).parent / "round.yaml"
PACKAGE = Path("dist") / f"alfamix-round-{__version__}.yaml"


def compile_round(path: Path, settings: PlatformSettings) -> None:
    """Write the pipeline; the same code, settings and SDK give the same bytes.

    Raises:
        InputError: the file's name does not end in .yaml.
    """
    if path.suffix != ".yaml":
        raise InputError(f"{path}: the file's name must end in .yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build(settings), str(path))


def main(arguments: list[str] | None = None) -> None:
    """Compile once; a deliberate error is one line and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compile", description="Write the round's pipeline for a Kubeflow cluster."
    )
    parser.add_argument("--settings", type=Path, help="TOML file, see docs/platform-settings.md")
    parser.add_argument("--digests", type=Path, help='file with a line "component image@sha256:…" for each component')
    parser.add_argument("--to", type=Path, help="YAML file to write")
    given = parser.parse_args(arguments)
    try:
        settings = PlatformSettings() if given.settings is None else platform_settings.read(given.settings)
        if given.digests is not None:
            settings = platform_settings.with_digests(settings, given.digests)
        to = given.to or (GOLDEN if given.settings is None and given.digests is None else PACKAGE)
        compile_round(to, settings)
    except AlfamixError as error:
        sys.stderr.write(f"alfamix: {' '.join(str(error).split())}\n")
        raise SystemExit(error.exit_status) from None
    print(f"wrote {to}")


if __name__ == "__main__":
    main()
