"""Vision Transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError
from toolkit.layers import spec as layers
from toolkit.layers.parameters import Constant, Normal, Parameter
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model

POSITION_STD = 0.02  # standard deviation of the initial positions, as in the authors' code


@spec
class ViT(Model):
    """Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale".

    Square patches of the image are mapped to vectors (equation 1 of the paper); a class token is prepended and learned
    positions are added. Each block is self-attention and a feed-forward network with an exact GELU, each after a
    normalization and with a residual connection (equations 2 and 3). A final normalization and a linear layer follow,
    on the class token (equation 4) or on the mean over the patches (appendix D.3). Keys have no bias, which would
    cancel in the softmax. Dropout follows the positions, the end of both modules and the activation of the second.

    Sizes: the defaults (0.8 M parameters) suit images of 28 x 28 or 32 x 32; base is the paper's ViT-B/16, and tiny and
    small are those of Touvron et al. 2020, "Training data-efficient image transformers".

    Initialization: matrices Glorot uniform, positions normal with a standard deviation of 0.02, class token and biases
    zero, normalizations one and zero.
    """

    input: ClassVar[str] = "image"
    output: ClassVar[str] = "classes"

    patch: int = option(4, "height and width of a patch in pixels; must divide those of the images", ge=1)
    dim: int = option(128, "width of the vectors of the patches", ge=1)
    layers: int = option(6, "number of blocks", ge=1)
    heads: int = option(4, "attention heads", ge=1)
    feed_forward: int = option(256, "inner width of the feed-forward networks", ge=1)
    pool: Literal["token", "mean"] = option("token", "input of the head: a class token, or the mean over the patches")
    dropout: float = option(0.1, "dropout rate", ge=0, lt=1)
    native_dropout: bool = option(False, "use the framework's dropout: faster, but masks differ between backends")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.dim % self.heads:
            yield "dim", f"found {self.dim}, expected a multiple of heads ({self.heads})"

    def parameters(self, inputs: tuple[int, int, int], outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: height, width and channels of an image.
            outputs: number of classes.

        Raises:
            ConfigError: height or width is not a multiple of ``patch``.
        """
        height, width, channels = inputs
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"model.patch: found {self.patch} with images of {height} x {width}, expected a divisor of both; set "
                "model.patch or features.size"
            )
        length = (height // self.patch) * (width // self.patch) + (self.pool == "token")
        parameters = under("embed", layers.dense(self.patch**2 * channels, self.dim))
        if self.pool == "token":
            parameters["class_token"] = Parameter((self.dim,), Constant(0.0))
        parameters["positions"] = Parameter((length, self.dim), Normal(POSITION_STD))
        for number in range(self.layers):
            parameters |= under(f"blocks.{number}", self._block())
        parameters |= under("norm", layers.layer_norm(self.dim))
        return parameters | under("head", layers.dense(self.dim, outputs))

    def _block(self) -> Parameters:
        attention = under("norm", layers.layer_norm(self.dim)) | layers.attention(self.dim)
        feed_forward = layers.feed_forward(self.dim, self.feed_forward)
        return under("attention", attention) | under("feed_forward", feed_forward)
