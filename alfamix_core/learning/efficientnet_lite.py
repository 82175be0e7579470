"""EfficientNet-Lite0, an encoder for CPUs: EfficientNet-B0 without squeeze and excitation, with ReLU6.

The modules have the names of the published weights, and the convolutions of stride 2 pad as TensorFlow does, in which
these weights were trained: with symmetric padding the logits differ by up to 3.

Source:
    Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, table 1; the
    changes are those of its authors' "EfficientNet-Lite", 2020.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

NAME = "efficientnet_lite0"
EMBEDDING_SIZE = 1280
_STEM = 32
_STAGES = (  # expansion, kernel, stride of the first block, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNetLite0(nn.Module):
    """From (n, 3, size, size) to (n, 1280), none negative."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        blocks: list[nn.Module] = []
        width = _STEM
        for expansion, kernel, stride, channels, count in _STAGES:
            for number in range(count):
                blocks.append(_Block(width, channels, expansion, kernel, 1 if number else stride))
                width = channels
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _Convolution(width, EMBEDDING_SIZE, 1)
        self._bn1 = _norm(EMBEDDING_SIZE)

    def forward(self, images_nCSS: Tensor) -> Tensor:
        """Return the embeddings (n, 1280) of normalised pixels."""
        maps = self._blocks(relu6(self._bn0(self._conv_stem(images_nCSS))))
        embeddings_nD: Tensor = relu6(self._bn1(self._conv_head(maps))).mean(dim=(2, 3))
        return embeddings_nD


class _Block(nn.Module):
    """An inverted residual: wider by 1 x 1, filtered by channel, narrower by 1 x 1, and added to its input."""

    def __init__(self, width: int, channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = width * expansion
        if expansion > 1:
            self._expand_conv = _Convolution(width, inner, 1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _Convolution(inner, inner, kernel, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = _Convolution(inner, channels, 1)
        self._bn2 = _norm(channels)
        self._expands = expansion > 1
        self._adds = stride == 1 and width == channels

    def forward(self, maps: Tensor) -> Tensor:
        inner = relu6(self._bn0(self._expand_conv(maps))) if self._expands else maps
        inner = relu6(self._bn1(self._depthwise_conv(inner)))
        out: Tensor = self._bn2(self._project_conv(inner))
        return maps + out if self._adds else out


class _Convolution(nn.Conv2d):
    """A convolution without bias whose output has ceil(side / stride) pixels a side; an odd padding is larger below."""

    def __init__(self, width: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(width, channels, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        sides = []
        for side in (maps.shape[3], maps.shape[2]):
            missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            sides += [missing // 2, missing - missing // 2]
        return torch.conv2d(pad(maps, sides), self.weight, stride=self.stride, groups=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
