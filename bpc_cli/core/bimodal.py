"""The layers of a bimodal model: two chains that share a hidden state."""

import dataclasses
import math

import jax
from jaxtyping import PRNGKeyArray

from bpc_cli.core.layers import Activation, activation, make_dense, with_output
from bpc_cli.core.models import Layers


@dataclasses.dataclass(frozen=True)
class Bimodal:
    """Dense layers from a shared hidden state to a flattened image, and others from it to a label.

    Each end predicts the shared state and is predicted from it through layers of its own, so that
    either can be inferred from the other (Oliviers, Tang & Bogacz 2025).

    Attributes:
        widths: hidden units of each state between the shared one and the image, in this order.
        shared: units of the shared state.
        label_widths: hidden units of each state between the label and the shared one.
        act_fn: the activation, by name or as a function.
        generator_act_fn: the generator's, if it is another; None: `act_fn`.
        use_bias: whether layers have biases.
        generator_output: ψ of the generated image, one of `names.OUTPUTS`, or a function.
        activation_at_ends: whether φ applies to the label and the image, too, when they are read.
    """

    widths: tuple[int, ...] = (256,)
    shared: int = 128
    label_widths: tuple[int, ...] = (64,)
    act_fn: str | Activation = "relu"
    generator_act_fn: str | Activation | None = None
    use_bias: bool = False
    generator_output: str | Activation = "identity"
    activation_at_ends: bool = False

    @property
    def top(self) -> int:
        """Which state is shared."""
        return len(self.label_widths) + 1

    def make_layers(
        self, key: PRNGKeyArray, n_top: int, image_shape: tuple[int, int, int]
    ) -> tuple[Layers, Layers]:
        """Make both directions' layers from `generator_key, amortiser_key = split(key)`.

        Each direction's key is split over its layers, label side first.

        Raises:
            ValueError: for a name that is unknown, or a size below 1.
        """
        sizes = [n_top, *self.label_widths, self.shared, *self.widths, math.prod(image_shape)]
        if min(sizes) < 1:
            raise ValueError("widths and the sizes of label and image must be at least 1")
        down, up = (
            activation(each) for each in (self.generator_act_fn or self.act_fn, self.act_fn)
        )
        generator, amortiser = [], []
        generator_key, amortiser_key = jax.random.split(key)
        n_layers = len(sizes) - 1
        keys = zip(
            jax.random.split(generator_key, n_layers),
            jax.random.split(amortiser_key, n_layers),
            strict=True,
        )
        for number, (own_down, own_up) in enumerate(keys):
            near, far = (sizes[number],), (sizes[number + 1],)
            if number < self.top:
                near, far = far, near
            is_end = number in (0, n_layers - 1) and not self.activation_at_ends
            phi = jax.nn.identity if is_end else up
            generator.append(make_dense(own_down, near, far, down, use_bias=self.use_bias))
            amortiser.append(make_dense(own_up, far, near, phi, use_bias=self.use_bias))
        return with_output(generator, self.generator_output), tuple(amortiser)
