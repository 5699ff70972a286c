"""Ten mistakes in the energy, one at a time, each of which some test must catch.

`make mutants` copies the package, makes a mistake in the copy, and runs the tests of the equations
against it. It exits with 1 if a mistake goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/test_energy_and_inference.py",
    "tests/test_algorithms.py",
    "tests/test_reference.py",
)
MUTANTS = {
    "the generator's error changes sign": (
        "states[i + 1] - generator.predict(i, states[i])",
        "states[i + 1] + generator.predict(i, states[i])",
    ),
    "the amortiser's error changes sign": (
        "states[i] - amortiser.predict(i, states[i + 1])",
        "states[i] + amortiser.predict(i, states[i + 1])",
    ),
    "the generator's last layer is left out": (
        "for i in range(generator.depth)]\n\n\ndef amortiser_errors",
        "for i in range(generator.depth - 1)] + [0 * image]\n\n\ndef amortiser_errors",
    ),
    "the amortiser's errors are numbered from the image": (
        "for i in range(amortiser.depth)]",
        "for i in reversed(range(amortiser.depth))]",
    ),
    "the generator's weight is dropped": (
        "forward = forward_energy_weight * jnp.stack",
        "forward = jnp.stack",
    ),
    "the amortiser's weight is dropped": (
        "backward = backward_energy_weight * jnp.stack",
        "backward = jnp.stack",
    ),
    "the half is forgotten": ("return 0.5 * jnp.sum(error**2)", "return jnp.sum(error**2)"),
    "the sum is not divided by the batch": ("/ error.shape[0]", "/ 1"),
    "a mean over units takes the place of their sum": (
        "0.5 * jnp.sum(error**2) / error.shape[0]",
        "0.5 * jnp.mean(error**2)",
    ),
    "the weights change places": (
        "        forward_energy_weight,\n        backward_energy_weight,\n        label_loss,\n",
        "        backward_energy_weight,\n        forward_energy_weight,\n        label_loss,\n",
    ),
}


def tests_fail(energy: str) -> bool:
    """Tell whether the tests fail on a copy of the package with another `energy.py`."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "bpc_cli", Path(folder) / "bpc_cli")
        (Path(folder) / "bpc_cli" / "core" / "energy.py").write_text(energy)
        done = subprocess.run(
            # Without -P the folder that it runs in would be imported from, instead of the copy.
            [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    return done.returncode == 1


def main() -> None:
    """Try every mistake, and report."""
    source = (ROOT / "bpc_cli" / "core" / "energy.py").read_text()
    if tests_fail(source):
        raise SystemExit("the tests fail without any mistake")
    unnoticed = 0
    for name, (old, new) in MUTANTS.items():
        if source.count(old) != 1:
            raise SystemExit(f"energy.py has changed: {old!r} is there {source.count(old)} times")
        caught = tests_fail(source.replace(old, new))
        unnoticed += not caught
        print(f"{'caught   ' if caught else 'UNNOTICED'}  {name}", flush=True)
    print(f"{len(MUTANTS) - unnoticed} of {len(MUTANTS)} caught")
    sys.exit(unnoticed > 0)


if __name__ == "__main__":
    main()
