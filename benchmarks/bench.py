"""`make bench`: what a training step and a whole run cost, beside their floors.

Step times are taken in one process and in alternation, so that a noisy machine cancels out of their
ratios: the numbers to quote are ratios, and the milliseconds say which machine it was.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import optax
from floor import (
    REPEATS,
    bare_product,
    bare_update,
    both_directions,
    unavoidable_convolutions,
    unavoidable_products,
)
from steps import (
    DEFAULT,
    Run,
    best_of,
    compile_epoch,
    compile_inference,
    compile_steps,
    compose_experiment,
    noise_dataset,
)

from bpc_cli.cli.architecture import model_maker
from bpc_cli.core.expansion import pays
from bpc_cli.runs.clock import PhaseClock

ROUNDS = 7
Maps = list[tuple[list[Run], int]]
SETTINGS = {
    "default": DEFAULT,
    "depth 3, batch 256, 8 steps": {"width": 256, "depth": 3, "batch": 256, "n_inference_steps": 8},
    "width 1024": DEFAULT | {"width": 1024},
}
SCALING = {
    "n_inference_steps": (DEFAULT | {"depth": 3}, (1, 8, 32, 100)),
    "batch": (DEFAULT, (64, 256, 1024, 4096)),
    "width": (DEFAULT, (256, 512, 1024, 2048)),
    "depth": (DEFAULT, (2, 3, 4, 6, 8)),
}
PIXELS = (784, 3072)
SWEEP = "1,0.3,0.1,3e-2,1e-2,3e-3,1e-3,3e-4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--only", choices=("steps", "scaling", "devices", "pixels", "processes"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": describe_machine()}
    parts = {
        "steps": measure_steps,
        "scaling": measure_scaling,
        "devices": measure_devices,
        "pixels": measure_pixels,
        "processes": measure_processes,
    }
    for name, measure in parts.items():
        if arguments.only in (None, name):
            results[name] = measure()
            (arguments.out / "bench.json").write_text(json.dumps(results, indent=1))
    if "scaling" in results:
        draw_scaling(results["scaling"], arguments.out / "scaling.png")
    print(f"everything is in {arguments.out}")


def measure_steps() -> list[dict[str, Any]]:
    """Time a step at each setting beside the pieces of its floor, in alternation."""
    print(f"{'setting':<30}{'ms/step':>9}{'floor':>9}{'ratio':>8}{'direct floor':>14}{'ratio':>8}")
    rows = []
    for name, setting in SETTINGS.items():
        sizes, batch, n_steps = (
            layer_sizes_of(setting),
            setting["batch"],
            setting["n_inference_steps"],
        )
        expanded = sizes[2:] != [] and pays(*sizes[-2:], n_steps, batch)
        ways = [
            list(unavoidable_products(sizes, batch, n_steps, expanded=how))
            for how in (expanded, False)
        ]
        pieces = {shape: bare_product(*shape) for way in ways for shape, _ in way}
        floor, direct = ([([pieces[shape]], times) for shape, times in way] for way in ways)
        update = bare_update(both_directions(sizes), optax.adam(1e-3))
        rows.append(beside_floor(name, compile_steps(**setting), floor, update, direct))
    rows.append(measure_experiment("small_cifar10_bpc", (32, 32, 3)))
    return rows


def measure_experiment(name: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Time a step of an experiment's convolutional network beside the pieces of its floor."""
    config = compose_experiment(name)
    noise = noise_dataset(image_shape, 16 * config.batch_size)
    model = model_maker(config, noise.n_classes, image_shape)(key=jax.random.PRNGKey(0))
    n_inference_steps = config.inference.n_steps
    maps = list(unavoidable_convolutions(model, config.batch_size, n_inference_steps))
    shapes = [leaf.shape for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))]
    update = bare_update(shapes, optax.adamw(config.optim.param_lr))
    return beside_floor(name, (compile_epoch(config, noise), 16), maps, update)


def beside_floor(
    name: str, compiled: tuple[Run, int], maps: Maps, update: Run, direct: Maps | None = None
) -> dict[str, Any]:
    """Time a chunk of steps beside its floor: each map in the fastest way, and one update.

    Args:
        name: what is measured.
        compiled: the chunk, and how many steps it has.
        maps: the maps of the floor, ways to do each, and how often.
        update: an update of the weights.
        direct: the maps where every inference step sees the image; None: the same.
    """
    step, n_steps = compiled
    floors = [maps, maps if direct is None else direct]
    runs = {run for floor in floors for ways, _ in floor for run in ways}
    rounds = []
    for _ in range(ROUNDS):
        took = {run: best_of(run) / REPEATS for run in runs}
        updating = best_of(update) / REPEATS
        found = [
            updating + sum(min(took[run] for run in ways) * times for ways, times in floor)
            for floor in floors
        ]
        rounds.append((best_of(step) / n_steps, *found))
    row = {
        "setting": name,
        "ms": 1e3 * statistics.median(spent for spent, *_ in rounds),
        "floor_ms": 1e3 * statistics.median(floor for _, floor, _ in rounds),
        "ratio": statistics.median(spent / floor for spent, floor, _ in rounds),
        "direct_floor_ms": 1e3 * statistics.median(floor for *_, floor in rounds),
        "ratio_to_direct": statistics.median(spent / floor for spent, _, floor in rounds),
    }
    print(
        f"{name:<30}{row['ms']:>9.3f}{row['floor_ms']:>9.3f}{row['ratio']:>8.2f}"
        f"{row['direct_floor_ms']:>14.3f}{row['ratio_to_direct']:>8.2f}"
    )
    return row


def measure_scaling() -> dict[str, list[dict[str, float]]]:
    """Time a step, and its compilation, as one dimension of the setting grows."""
    table = {}
    for dimension, (base, values) in SCALING.items():
        rows = []
        for value in values:
            jax.clear_caches()
            with PhaseClock(time.time()) as clock:
                step, n_steps = compile_steps(**base | {dimension: value})
            compile_s = clock.seconds["compile"]
            rows.append(
                {dimension: value, "ms": 1e3 * best_of(step, 3) / n_steps, "compile_s": compile_s}
            )
            print(
                f"{dimension:<20}{value:>6}{rows[-1]['ms']:>12.3f} ms/step"
                f"{compile_s:>8.2f} s of compiling"
            )
        table[dimension] = rows
    return table


def measure_devices() -> dict[str, float]:
    """Time eight seeds on two CPU devices beside one, in a process that has two."""
    script = Path(__file__).with_name("devices.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    print(
        f"eight seeds on two CPU devices: {row['two_ms']:.2f} ms/step, {row['ratio']:.2f} of one's"
    )
    return row


def measure_pixels() -> dict[str, float]:
    """Time inference of 100 steps with image and label clamped, on images of two sizes."""
    small, large = (compile_inference(n_pixels, 100) for n_pixels in PIXELS)
    rounds = [(best_of(small), best_of(large)) for _ in range(ROUNDS)]
    row = {
        f"ms_{PIXELS[0]}": 1e3 * statistics.median(of_small for of_small, _ in rounds),
        f"ms_{PIXELS[1]}": 1e3 * statistics.median(of_large for _, of_large in rounds),
        "ratio": statistics.median(of_large / of_small for of_small, of_large in rounds),
    }
    print(
        f"100 steps on 256 images of {PIXELS[0]} pixels: {row[f'ms_{PIXELS[0]}']:.0f} ms, "
        f"of {PIXELS[1]} pixels {row['ratio']:.2f} times that"
    )
    return row


def measure_processes() -> dict[str, Any]:
    """Time whole processes of the default run: cold, warm, as a sweep, and as separate runs."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BPC_CACHE_DIR": f"{folder}/cache"}
        cold = run_command(folder, environment, "hydra.run.dir=cold")
        warm = [run_command(folder, environment, f"hydra.run.dir=warm{i}") for i in range(3)]
        best = min(warm, key=lambda run: run["process_s"])
        bare = min(time_imports() for _ in range(3))
        print(f"bare imports of JAX, Equinox, Optax and Hydra: {bare:.2f} s")
        print_run("default run, cold caches", cold)
        print_run("default run, warm caches", best)
        sweep = run_sweep(folder, environment)
        separate = [
            run_command(
                folder, environment, f"hydra.run.dir=single{i}", f"forward_energy_weight={w}"
            )
            for i, w in enumerate(SWEEP.split(","))
        ]
        sweep["separate_s"] = sum(run["process_s"] for run in separate)
        print(
            f"8-point sweep: {sweep['process_s']:.1f} s in one call, later jobs "
            f"{sweep['later_job_s']:.2f} s each; as 8 runs {sweep['separate_s']:.1f} s"
        )
    return {"imports_s": bare, "cold": cold, "warm": best, "sweep": sweep}


def layer_sizes_of(setting: dict[str, int]) -> list[int]:
    return [10, *[setting["width"]] * (setting["depth"] - 1), 784]


def time_imports() -> float:
    """Time a process that imports what every run does, and nothing else."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import equinox, hydra, jax, optax"], check=True)
    return time.perf_counter() - began


def run_command(folder: str, environment: dict[str, str], *overrides: str) -> dict[str, Any]:
    """Run `bpc-train` in a process of its own: wall seconds, seconds by phase, peak memory."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("bpc-train"), *overrides],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    process.wait()
    process_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"bpc-train failed with {process.returncode}")
    run = overrides[0].partition("=")[2]
    summaries = sorted(Path(folder, run).rglob("summary.json"))
    summary = json.loads(summaries[0].read_text())
    return {
        "process_s": process_s,
        "seconds": summary["seconds"],
        "data": summary["data"]["name"],
        "peak_mib": summary["peak_memory_mib"],
    }


def run_sweep(folder: str, environment: dict[str, str]) -> dict[str, Any]:
    """Time a sweep over alpha_f in one call, and its second and later jobs."""
    sweep = run_command(
        folder, environment, "hydra.sweep.dir=sweep", f"forward_energy_weight={SWEEP}", "-m"
    )
    later = [
        json.loads(Path(folder, "sweep", str(job), "summary.json").read_text())["seconds"]
        for job in range(1, 8)
    ]
    return {
        "process_s": sweep["process_s"],
        "later_job_s": statistics.median(seconds["total"] for seconds in later),
        "later_job_train_and_evaluate_s": statistics.median(
            seconds["train"] + seconds["evaluate"] for seconds in later
        ),
        "later_job_compile_s": statistics.median(seconds["compile"] for seconds in later),
    }


def print_run(name: str, run: dict[str, Any]) -> None:
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in run["seconds"].items())
    print(f"{name} ({run['data']}): {run['process_s']:.2f} s, {run['peak_mib']:.0f} MiB; {phases}")


def describe_machine() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": version("jax"),
        "matmul_precision": jax.config.jax_default_matmul_precision or "JAX's default",
    }


def draw_scaling(table: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw step time against each dimension on log-log axes, beside a line of slope 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (dimension, rows) in zip(figure.subplots(1, len(table)), table.items(), strict=True):
        values = [row[dimension] for row in rows]
        times = [row["ms"] for row in rows]
        axes.loglog(values, times, "o-", label="measured")
        axes.loglog(values, [times[0] * value / values[0] for value in values], ":", label="linear")
        axes.set(xlabel=dimension.replace("_", " "), ylabel="ms per step")
        axes.xaxis.minorticks_off()
        axes.set_xticks(values, [str(value) for value in values])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
