"""Which run a command means if none is named."""

from pathlib import Path

from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.weights import RunError
from dalle_mini_impl.shipped.commands import command


def runs_with(weights: str | None = None, root: str | Path = "runs") -> list[Path]:
    """The runs under `root`; only those that have `weights`, if given."""
    return [
        config.parent
        for config in Path(root).glob("*/config.yaml")
        if weights is None or (config.parent / f"{weights}.safetensors").is_file()
    ]


def newest(root: str | Path = "runs", weights: str | None = None) -> RunFolder:
    """The run under `root` that was last written to; only runs that have `weights`, if given."""
    candidates = runs_with(weights, root)
    if not candidates:
        lacking = "" if weights is None else f" with {weights}.safetensors"
        raise RunError(
            f"{root}/: no run{lacking} there; train one (`{command('train')} shapes`) "
            "or name one with --run"
        )
    return RunFolder.open(max(candidates, key=_last_written))


def _last_written(run: Path) -> float:
    files = [run / "config.yaml", run / "metrics.jsonl", *run.glob("*.safetensors")]
    return max(file.stat().st_mtime for file in files if file.is_file())
