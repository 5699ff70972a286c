"""Eight seeds on two CPU devices beside one, in alternation; prints the milliseconds of a step."""

import json
import statistics

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from steps import DEFAULT, Run, best_of, make_training, noise_dataset

from bpc_cli.core.architectures import Mlp
from bpc_cli.core.ensembles import stack
from bpc_cli.core.layout import Layout, lay_out, place
from bpc_cli.core.learning import make_state
from bpc_cli.core.models import make_model
from bpc_cli.core.training import Chunk, Examples, train_ensemble
from bpc_cli.data.examples import batch_indices
from bpc_cli.data.pixels import PixelScale

N_SEEDS, N_STEPS, ROUNDS = 8, 50, 7


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    one = Layout(*[SingleDeviceSharding(jax.devices()[0])] * 3)
    two = lay_out(N_SEEDS, DEFAULT["batch"], jax.devices())
    runs = [compile_ensemble(layout) for layout in (one, two)]
    rounds = [[best_of(run) / N_STEPS for run in runs] for _ in range(ROUNDS)]
    print(
        json.dumps(
            {
                "one_ms": 1e3 * statistics.median(took for took, _ in rounds),
                "two_ms": 1e3 * statistics.median(took for _, took in rounds),
                "ratio": statistics.median(two / one for one, two in rounds),
            }
        )
    )


def compile_ensemble(layout: Layout) -> Run:
    """Compile and run once a chunk of eight seeds' default steps, laid out over devices."""
    scale, noise = PixelScale(0.1307, 0.3081), noise_dataset((28, 28, 1))
    batch = DEFAULT["batch"]
    keys = [jax.random.PRNGKey(seed) for seed in range(N_SEEDS)]
    training = stack([make_training(batch, DEFAULT["n_inference_steps"], key) for key in keys])
    maker = Mlp(DEFAULT["width"], DEFAULT["depth"])
    models = [make_model(maker, key, 10, (28, 28, 1), scale) for key in keys]
    states = stack([make_state(model, training.learning) for model in models])
    n_images = len(noise.train_images)
    indices = np.stack(
        [batch_indices(seed, 1, N_STEPS, n_images, batch) for seed in range(N_SEEDS)]
    )
    examples = Examples(*place((noise.train_images, noise.train_labels), layout.of_all))
    chunk = Chunk(
        examples,
        place(indices, layout.of_steps),
        place(np.int32(N_STEPS), layout.of_all),
        place(training, layout.of_members),
    )
    states = place(states, layout.of_members)

    def run() -> None:
        nonlocal states
        states, *_ = jax.block_until_ready(train_ensemble(chunk, states))

    run()
    return run


if __name__ == "__main__":
    main()
