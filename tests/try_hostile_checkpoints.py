"""Evaluate and resume hostile checkpoints in one process, which may take little memory.

python tests/try_hostile_checkpoints.py RUN RESULTS NAMES…
"""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from conftest import captured, exit_code_of
from hostile_checkpoints import CASES

from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint

TRAINING = ("data=digits", "model.width=8", "n_train_iters=10", "test_every=10")
MOST_MEMORY = 2**30


def limit_memory() -> None:
    """Let this process have so much more memory than it has now, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak_memory() -> int:
    """Read the most memory that this process has had since it was last asked, and ask anew."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) * 1024


def try_all(run: Path, results: Path, names: list[str]) -> None:
    """Evaluate and resume each; leave exit codes, error output, seconds and bytes as JSON."""
    environment = dict(os.environ)

    def tried(program: str, *arguments: str) -> dict[str, Any]:
        os.environ.clear()
        os.environ.update(environment)
        peak_memory()
        before, began = peak_memory(), time.process_time()
        with captured() as outputs:
            code = exit_code_of(program, *arguments)
        seconds = time.process_time() - began  # of the processor, as the machine may be busy
        more = peak_memory() - before
        return {
            "code": code,
            "out": outputs[0],
            "err": outputs[1],
            "seconds": seconds,
            "bytes": more,
        }

    good = read_checkpoint(run / "checkpoints" / "last.ckpt")
    found = {}
    for name in ["good", *names]:
        copy = Path(shutil.copytree(run, "run"))
        (copy / "summary.json").unlink()
        shutil.copy(run / "checkpoints" / "last.ckpt", copy / "checkpoints" / "previous.ckpt")
        (copy / "checkpoints" / "best.ckpt").unlink()  # as new as `previous`, and before it
        path = copy / "checkpoints" / "last.ckpt"
        if name != "good":
            path.unlink()
            CASES[name](path, json.loads(json.dumps(good.header)), good.payload)
        found[name] = {
            "evaluated": tried("bpc-eval", f"checkpoint={path}", "hydra.run.dir=evaluation"),
            "resumed": tried("bpc-train", *TRAINING, "hydra.run.dir=run"),
        }
        shutil.rmtree(copy)
        shutil.rmtree("evaluation", ignore_errors=True)
        if name == "good":
            limit_memory()
    results.write_text(json.dumps(found))


if __name__ == "__main__":
    try_all(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(CASES))
