"""Mistakes in the equations, one at a time, each of which some test must catch.

`make mutation-test` copies the package, makes one mistake in the copy, and runs the tests of the
equations against it. It exits with 1 if a mistake goes unnoticed.
"""

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mistakes import Mistake, list_mistakes

ROOT = Path(__file__).parents[1]
PACKAGE = "bpc_cli"
TESTS = (
    "tests/test_energy_and_inference.py",
    "tests/test_algorithms.py",
    "tests/test_reference.py",
    "tests/test_clamping.py",
    "tests/test_expansion.py",
    "tests/test_training_choices.py",
)
FUNCTIONS = {
    "core/energy.py": (
        "generator_errors",
        "amortiser_errors",
        "energy_terms",
        "output_terms",
        "energy",
        "label_term",
        "half_square_norm",
    ),
    "core/clamping.py": ("Clamping.complete",),
    "core/inference.py": (
        "Inference.energy",
        "initialise",
        "init_activities",
    ),
    "core/expansion.py": ("Expansion.__call__", "_quadratic", "expand_ends", "_expand"),
    "core/relaxation.py": ("relax", "root_mean_square"),
    "core/layers.py": ("Dense.__call__", "Residual.__call__"),
    "core/models.py": ("Model.feed_down", "Model.feed_up"),
    "core/learning.py": ("observed_train_step", "_learnt_terms", "_losses", "_learn"),
}
# What leaves the program the same: the function, what is replaced in it, and by what; and why.
EQUIVALENT = {
    (
        "output_terms",
        "forward.at",
        "backward.at",
    ): "both are zeros until then",
    (
        "Clamping.complete",
        "self.label_known is not None and free.label is not None",
        "self.label_known is not None or free.label is not None",
    ): "an end is free exactly where there is a mask of it",
    (
        "Clamping.complete",
        "self.image_known is not None and free.image is not None",
        "self.image_known is not None or free.image is not None",
    ): "an end is free exactly where there is a mask of it",
    (
        "init_activities",
        "max(len(shapes), 1)",
        "max(len(shapes), 2)",
    ): "the first of two keys is the first of one",
    (
        "relax",
        "jnp.zeros((n_steps + 1, *row.shape), row.dtype)",
        "jnp.ones((n_steps + 1, *row.shape), row.dtype)",
    ): "rows that no step writes are filled in at the end",
    (
        "root_mean_square",
        "sum((jnp.sum(leaf ** 2) for leaf in leaves), jnp.zeros(()))",
        "sum((jnp.sum(leaf ** 2) for leaf in leaves[::-1]), jnp.zeros(()))",
    ): "a sum in another order differs by rounding alone",
    (
        "root_mean_square",
        "sum((leaf.size for leaf in leaves))",
        "sum((leaf.size for leaf in leaves[::-1]))",
    ): "whole numbers have the same sum in any order",
    (
        "Dense.__call__",
        "self.scale != 1.0",
        "self.scale != 2.0",
    ): "no initialisation scales by more than 1, and a product with 1 is the same",
}


def main() -> None:
    """Make the mistakes that are chosen, and report which go unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="make every mistake (hours)")
    parser.add_argument("--list", action="store_true", help="list the mistakes, and make none")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="the test files to run")
    arguments = parser.parse_args()
    mistakes = find_mistakes()
    chosen = mistakes if arguments.all else choose(mistakes)
    if arguments.list:
        print(*chosen, sep="\n")
        return
    time_limit = check_tests(arguments.tests)
    unnoticed = 0
    for mistake in chosen:
        caught = tests_fail(arguments.tests, mistake.file, mistake.source(), time_limit)
        unnoticed += not caught
        print(f"{'caught   ' if caught else 'UNNOTICED'}  {mistake}", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} caught")
    sys.exit(unnoticed > 0)


def find_mistakes() -> list[Mistake]:
    """List every mistake that changes what the functions compute."""
    return [
        mistake
        for file, functions in FUNCTIONS.items()
        for mistake in list_mistakes(file, (ROOT / PACKAGE / file).read_text(), functions)
        if (mistake.function, *mistake.change()) not in EQUIVALENT
    ]


def choose(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Choose one mistake in each function, and all kinds about equally often."""
    in_function = collections.defaultdict(list)
    for mistake in mistakes:
        in_function[mistake.function].append(mistake)
    times_chosen: collections.Counter[str] = collections.Counter()
    chosen = []
    for own in in_function.values():
        # Of the least frequent kind, the one in the middle: first ones are often mere indices.
        rarest = min(times_chosen[mistake.operator] for mistake in own)
        candidates = [each for each in own if times_chosen[each.operator] == rarest]
        chosen.append(candidates[len(candidates) // 2])
        times_chosen[chosen[-1].operator] += 1
    return chosen


def check_tests(tests: Sequence[str]) -> float:
    """Check that the tests pass without a mistake, and that they test the copy.

    Returns:
        The seconds after which tests of a mistake count as hanging.
    """
    file = next(iter(FUNCTIONS))
    began = time.monotonic()
    if tests_fail(tests, file, (ROOT / PACKAGE / file).read_text()):
        raise SystemExit("the tests fail without any mistake")
    spent = time.monotonic() - began
    if not tests_fail(tests, file, "raise AssertionError('this is the copy')"):
        raise SystemExit("the tests import another package than the copy")
    return 60 + 3 * spent


def tests_fail(
    tests: Sequence[str], file: str, source: str, time_limit: float | None = None
) -> bool:
    """Tell whether tests fail on a copy of the package with another source of one file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PACKAGE
        shutil.copytree(ROOT / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / file).write_text(source)
        try:
            done = subprocess.run(
                # Without -P the folder that it runs in would be imported from, not the copy.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "pytest",
                    "-x",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-m",
                    "not slow and not proof",
                    *tests,
                ],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": folder},
                capture_output=True,
                text=True,
                timeout=time_limit,
            )
        except subprocess.TimeoutExpired:  # as of a loop that a mistake never lets end
            return True
    # A mistake may already raise where tests are collected, which is 2.
    if done.returncode not in (0, 1, 2):
        raise SystemExit(done.stdout + done.stderr)
    return done.returncode > 0


if __name__ == "__main__":
    main()
