"""PCX, as its tutorials train: one jitted step per batch; layers have biases, its default."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pcx
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
import serving
from jax import Array
from serving import Data

BATCHED = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
FREE = pxu.M_hasnot(pxc.VodeParam, frozen=True)
IS_FREE = pxu.M_hasnot(pxc.VodeParam, frozen=True).to([False, True])
WEIGHTS = pxu.M(pxnn.LayerParam)
IS_WEIGHT = pxu.M(pxnn.LayerParam).to([False, True])


class Network(pxc.EnergyModule):
    """A predictive coding network; activations come before linear maps, as in ours."""

    def __init__(self):
        super().__init__()
        pairs = list(zip(serving.SIZES[:-1], serving.SIZES[1:], strict=True))
        self.layers = [pxnn.Linear(*pair) for pair in pairs]
        self.vodes = [pxc.Vode() for _ in pairs]
        self.vodes[-1].h.frozen = True  # the label is clamped

    def __call__(self, image: Array, label: Array | None) -> Array:
        state = self.vodes[0](self.layers[0](image))
        for vode, layer in zip(self.vodes[1:], self.layers[1:], strict=True):
            state = vode(layer(jax.nn.leaky_relu(state)))
        if label is not None:
            self.vodes[-1].set("h", label)
        return self.vodes[-1].get("u")


@pxf.vmap(BATCHED, in_axes=(0, 0), out_axes=0)
def forward(image, label, *, model: Network):
    return model(image, label)


@pxf.vmap(BATCHED, in_axes=(0,), out_axes=(None, 0), axis_name="batch")
def energy(image, *, model: Network):
    predicted = model(image, None)
    return jax.lax.psum(model.energy(), "batch"), predicted


@pxf.jit(static_argnums=0)
def train_on_batch(n_steps, images, labels, *, model: Network, optim_w, optim_h):
    """Initialise and relax the activities, then take a step of the weights."""
    model.train()
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(images, jax.nn.one_hot(labels, serving.SIZES[-1]), model=model)
    optim_h.init(FREE(model))
    for _ in range(n_steps):
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, gradients = pxf.value_and_grad(IS_FREE, has_aux=True)(energy)(images, model=model)
        optim_h.step(model, gradients["model"])
    optim_h.clear()
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, gradients = pxf.value_and_grad(IS_WEIGHT, has_aux=True)(energy)(images, model=model)
    optim_w.step(model, gradients["model"], scale_by=1 / len(images))


@pxf.jit()
def predict_batch(images, *, model: Network):
    model.eval()
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        return jnp.argmax(forward(images, None, model=model), axis=-1)


class PcxLoop:
    """A network that learns MNIST."""

    def __init__(self, data: Data, setting: str):
        self.images, self.labels = serving.unit_pixels(data.train_images), data.train_labels
        self.test_images = serving.unit_pixels(data.test_images)
        self.model = Network()
        self.optim_h = pxu.Optim(lambda: optax.sgd(serving.ACTIVITY_RATE))
        self.optim_w = pxu.Optim(lambda: optax.adam(serving.WEIGHT_RATE), WEIGHTS(self.model))

    def reset(self) -> None:
        # In place, as a step is compiled anew for every optimiser.
        pcx.RKG.seed(0)
        for layer, fresh in zip(self.model.layers, Network().layers, strict=True):
            layer.nn.weight.set(fresh.nn.weight.get())
            layer.nn.bias.set(fresh.nn.bias.get())
        zeros = jax.tree.map(jnp.zeros_like, self.optim_w.state.get())
        self.optim_w.state.set(zeros)

    def train(self, rows: np.ndarray) -> None:
        for row in rows:
            train_on_batch(
                serving.N_INFERENCE_STEPS,
                self.images[row],
                self.labels[row],
                model=self.model,
                optim_w=self.optim_w,
                optim_h=self.optim_h,
            )
        jax.block_until_ready(self.model.layers[0].nn.weight.get())

    def predict(self) -> np.ndarray:
        self.model.clear_params(pxc.VodeParam)  # the states of another number of images
        predicted = np.asarray(predict_batch(self.test_images, model=self.model))
        self.model.clear_params(pxc.VodeParam)
        return predicted


if __name__ == "__main__":
    serving.serve(PcxLoop, ("pcx", "jax"), ("discriminative",))
