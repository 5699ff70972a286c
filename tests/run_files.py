"""What a run leaves, as tests compare it."""

import json
from pathlib import Path

import yaml

from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint


def lines_of(run: Path) -> list[dict]:
    """Read a run's metrics lines, but for the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{**line, "seconds": None} for line in lines]


def summary_of(run: Path) -> dict:
    """Read a run's summary."""
    return json.loads((run / "summary.json").read_text())


def status_of(run: Path) -> str:
    """Read how a run ended."""
    return summary_of(run)["status"]


def write_run(
    path: Path, weight: float = 0.01, seeds: tuple[int, ...] = (0, 1), label_loss: str = "squared"
) -> Path:
    """Write a finished run of four iterations, tested at the second and the fourth."""
    (path / ".hydra").mkdir(parents=True)
    config = {
        "seed": seeds[0],
        "n_seeds": len(seeds),
        "n_train_iters": 4,
        "forward_energy_weight": weight,
        "model": {"width": 32, "label_loss": label_loss},
    }
    (path / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "summary.json").write_text(
        json.dumps({"status": "finished", "reason": None, "data": {"name": "digits"}})
    )
    lines = [
        {
            "iteration": iteration,
            "epoch": 0,
            "seed": seed,
            "seconds": 1.0,
            "gen_loss": (seed + 1) / iteration,
            "amort_loss": 0.5 / iteration,
            "test_accuracy": 60.0 + seed - weight if iteration % 2 == 0 else None,
            "generation_error": 0.2 + weight if iteration % 2 == 0 else None,
        }
        for iteration in range(1, 5)
        for seed in seeds
    ]
    write_lines(path, lines)
    return path


def write_lines(run: Path, lines: list[dict]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def assert_same_run(run: Path, expected: Path, status: str = "finished") -> None:
    """Compare all that two runs left, but for the clock."""
    assert status_of(run) == status_of(expected) == status
    assert lines_of(run) == lines_of(expected)
    names = sorted(path.name for path in (expected / "checkpoints").iterdir())
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == names
    for name in names:
        saved, wanted = (read_checkpoint(r / "checkpoints" / name) for r in (run, expected))
        assert saved.header["iteration"] == wanted.header["iteration"], name
        assert saved.header["arrays"] == wanted.header["arrays"]
        assert saved.payload == wanted.payload, name
    pictures = sorted(path.name for path in (expected / "samples").iterdir())
    assert sorted(path.name for path in (run / "samples").iterdir()) == pictures
