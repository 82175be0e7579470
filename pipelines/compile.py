"""Write the round's pipeline as the YAML that a Kubeflow cluster runs.

    python -m pipelines.compile [--settings FILE] [--digests FILE] [--to FILE] [--kustomize FOLDER]

writes pipelines/round.yaml if no option is given: the defaults, with images by this version's tag. With settings or
digests it writes dist/alfamix-round-<version>.yaml. With digests and a folder of kustomize it also writes a component
there that pins the trigger's image. It needs kfp and neither torch nor boto3.
"""

import argparse
import re
import sys
from pathlib import Path

from kfp import compiler

from alfamix_core import __version__
from alfamix_core.errors import AlfamixError, InputError
from components import images
from pipelines import platform_settings
from pipelines.platform_settings import PlatformSettings
from pipelines.round import build

GOLDEN = Path(__file__).parent / "round.yaml"
PACKAGE = Path("dist") / f"alfamix-round-{__version__}.yaml"


def compile_round(path: Path, settings: PlatformSettings) -> None:
    """Write the pipeline; the same code, settings and SDK give the same bytes.

    Raises:
        InputError: The file's name does not end in .yaml.
    """
    if path.suffix != ".yaml":
        raise InputError(f"{path}: the file's name must end in .yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build(settings), str(path))


def write_component(folder: Path, digests: Path) -> None:
    """Write a kustomize component that pins the trigger's image, for the ``components`` of an overlay of deploy/.

    Args:
        folder: Folder to write kustomization.yaml to.
        digests: See ``platform_settings.read_digests``.

    Raises:
        InputError: No line for the trigger, or one without a digest.
    """
    image = platform_settings.read_digests(digests).get(images.TRIGGER, "")
    name, _, digest = image.partition("@")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise InputError(f'{digests}: must have a line "{images.TRIGGER} image@sha256:…" for {folder}')
    lines = (
        "# The trigger's and the exporter's image by digest. List this folder below `components`, as the last.",
        "apiVersion: kustomize.config.k8s.io/v1alpha1",
        "kind: Component",
        "images:",
        f"  - name: {images.REGISTRY}/alfamix-{images.TRIGGER}",
        f"    newName: {name}",
        f"    digest: {digest}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Compile once; a deliberate error is one line and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compile", description="Write the round's pipeline for a Kubeflow cluster."
    )
    parser.add_argument("--settings", type=Path, help="TOML file, see docs/platform-settings.md")
    parser.add_argument("--digests", type=Path, help='file with a line "component image@sha256:…" for each component')
    parser.add_argument("--to", type=Path, help="YAML file to write")
    parser.add_argument(
        "--kustomize", type=Path, help="folder for a kustomize component with the trigger's image by digest"
    )
    given = parser.parse_args(arguments)
    try:
        settings = PlatformSettings() if given.settings is None else platform_settings.read(given.settings)
        if given.digests is not None:
            settings = platform_settings.with_digests(settings, given.digests)
        to = given.to or (GOLDEN if given.settings is None and given.digests is None else PACKAGE)
        if given.kustomize is not None:
            if given.digests is None:
                raise InputError("--kustomize: needs --digests, whose line for the trigger it writes down")
            write_component(given.kustomize, given.digests)
        compile_round(to, settings)
    except AlfamixError as error:
        sys.stderr.write(f"alfamix: {' '.join(str(error).split())}\n")
        raise SystemExit(error.exit_status) from None
    print(f"wrote {to}")


if __name__ == "__main__":
    main()
