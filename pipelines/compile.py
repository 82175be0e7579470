"""Write the round's pipeline as the YAML that a Kubeflow cluster runs."""

from pathlib import Path

from kfp import compiler

from alfamix_core.errors import InputError
from pipelines.round import alfamix_round

GOLDEN = Path(__file__).parent / "round.yaml"


def compile_round(path: Path) -> None:
    """Write the pipeline; the same code and SDK give the same bytes.

    Raises:
        InputError: the file's name does not end in .yaml.
    """
    if path.suffix != ".yaml":
        raise InputError(f"{path}: the file's name must end in .yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(alfamix_round, str(path))


if __name__ == "__main__":
    compile_round(GOLDEN)
