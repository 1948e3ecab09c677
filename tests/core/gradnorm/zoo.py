"""Small models, one for every rule of the engine and for each way in which a model may use its parameters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from core.models import architectures
from data.torchvision_import import torchvision

N, K = 5, 4
PIXELS = (3, 8, 8)
TOKENS, VOCABULARY = (7,), 11


class Pooled(nn.Module):
    """A layer between two linear ones, so that its gradients are of a general kind: logits [N, K]."""

    def __init__(self, *layers: nn.Module, features: int | None = None, shape: tuple[int, ...] = PIXELS) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        if features is None:
            with torch.no_grad():
                features = self.body.eval()(torch.zeros(1, *shape)).shape[1]
        self.head = nn.Linear(features, K)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).tanh()
        return self.head(y.flatten(2).square().mean(dim=2) if y.ndim > 2 else y)


class Sequence(nn.Module):
    """Layers on [N, T, 8] that an embedding of tokens makes, and the mean over T."""

    def __init__(self, *layers: nn.Module, padding_idx: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8, padding_idx=padding_idx)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(8, K)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(tokens)).tanh().mean(dim=1))


class Attention(nn.Module):
    """nn.MultiheadAttention on [N, T, 8] or, if not `batch_first`, on [T, N, 8]; of itself or of something else."""

    def __init__(self, batch_first: bool, itself: bool = True, weights: bool = False, kdim: int | None = None) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=kdim, vdim=kdim)
        self.keys = nn.Linear(8, kdim or 8)
        self.itself, self.weights = itself, weights

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.attention.batch_first else x.transpose(0, 1)
        keys = x if self.itself else self.keys(x)
        y = self.attention(x, keys, x if self.itself else keys, need_weights=self.weights)[0]
        return y if self.attention.batch_first else y.transpose(0, 1)


class TimeFirst(nn.Module):
    """Linear, LayerNorm and a raw parameter on [T, N, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.position = nn.Parameter(torch.randn(TOKENS[0], 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.transpose(0, 1) + self.position)).transpose(0, 1)


class Folded(nn.Module):
    """Linear, convolution and norms on windows: [N · 4, …] where a sample has four neighbours."""

    def __init__(self, inner: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = inner
        self.head = nn.Linear(4, K)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        windows = x.unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [N, 4, 3, 4, 4]
        if self.inner:
            rows = windows.transpose(0, 1).flatten(0, 1).mean(dim=3)
            return self.head(F.pad(self.linear(rows).tanh(), (0, 1)).unflatten(0, (4, n)).mean(dim=(0, 2)))
        y = self.norm(self.conv(windows.flatten(0, 1))).tanh()
        return self.head(y.unflatten(0, (n, 4)).mean(dim=(1, 3, 4)))


class Reused(nn.Module):
    """One convolution and one linear layer, each applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3), nn.Linear(3, K)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.conv(x).tanh()).mean(dim=(2, 3))
        return self.head(self.linear(self.linear(y).tanh()))


class Tied(nn.Module):
    """The embedding's weight is the head's, in the functional form: logits [N, vocabulary]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.embedding(tokens).mean(dim=1).tanh(), self.embedding.weight)


class Raw(nn.Module):
    """Parameters by themselves: added, added in place, multiplied, expanded, and a view of one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(3, 1, 1)), nn.Parameter(torch.randn(3, 8, 8))
        self.token, self.matrix = nn.Parameter(torch.randn(1, 1, 3)), nn.Parameter(torch.randn(2 * K, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.add(x * self.scale, self.shift, alpha=0.5)
        x += self.shift.mT
        x = x.tanh()
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).mT], dim=1)
        first, second = self.matrix.chunk(2)
        return F.linear(tokens, first).tanh().sum(dim=1) + F.linear(tokens.mean(dim=1), second)


class Scalars(nn.Module):
    """Parameters without dimensions: a temperature and a shift, each used twice, and a gain used once."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.temperature, self.shift = (nn.Parameter(torch.tensor(value)) for value in (0.7, 1.5, -0.2))
        self.head = nn.Linear(192, K)

    def forward(self, x: Tensor) -> Tensor:
        y = (self.gain * x.flatten(1) + self.shift).tanh() * self.temperature
        return self.head(y + self.shift) * self.temperature


class With(nn.Module):
    """A function of the input and of parameters of the given shapes, whose values are about one."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.parameter = nn.ParameterList(1 + 0.3 * torch.randn(shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parameter)


def standardised(x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    """A convolution whose weight is standardised as in NFNet: by batch normalisation of the weight."""
    flat = weight.reshape(1, len(weight), -1)
    weight = F.batch_norm(flat, None, None, weight=(gain * 0.5).view(-1), training=True).reshape_as(weight)
    return F.conv2d(x, weight, padding=1)


def global_response(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    """GRN, as in ConvNeXt v2."""
    spread = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + torch.addcmul(
        bias.view(1, 3, 1, 1), weight.view(1, 3, 1, 1), x * spread / spread.mean(dim=1, keepdim=True)
    )


def relative(side: int) -> Tensor:
    """[side², side²] which row of a table belongs to two pixels of a window."""
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    steps = places[:, None] - places + side - 1
    return steps[..., 0] * (2 * side - 1) + steps[..., 1]


class Biased(nn.Module):
    """Attention within windows of 2 × 2 and a bias by relative position from a table, as in Swin; `masked`: each window
    has a mask of its own, too, which is added to the bias before samples meet them; `fused`: by torch's own function."""

    def __init__(self, fused: bool, masked: bool) -> None:
        super().__init__()
        self.qkv, self.table = nn.Linear(3, 12), nn.Parameter(torch.randn(9, 2))
        self.register_buffer("index", relative(2))
        self.register_buffer("mask", torch.randn(16, 1, 4, 4, dtype=torch.float64))
        self.fused, self.masked = fused, masked

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        windows = x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 3, 5, 1).reshape(n * 16, 4, 3)
        q, k, v = self.qkv(windows).view(-1, 4, 3, 2, 2).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(4, 4, 2).permute(2, 0, 1).contiguous().unsqueeze(0)
        if self.masked:
            bias = bias + self.mask.to(bias.dtype).expand(n, -1, -1, -1, -1).reshape(-1, 1, 4, 4)
        scores = None if self.fused else (q @ k.mT + bias).softmax(dim=-1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias) if scores is None else scores @ v
        return y.transpose(1, 2).reshape(n, 64, 4).mT


class PositionNetwork(nn.Module):
    """A bias by position that a small network makes, with a function in place, as in Swin v2 and CoAtNet."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 5), nn.ReLU(inplace=True), nn.Linear(5, 8))
        self.register_buffer("places", torch.randn(8, 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x + 2 * torch.sigmoid(self.network(self.places.to(x.dtype)))


class PartlyBiased(nn.Module):
    """A bias of which a part is set to zero in place, as for the keys in Swin v2, and one put together of two."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.first = nn.Parameter(torch.randn(9, 8)), nn.Parameter(torch.randn(9))
        self.left, self.right = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.first.clone()
        bias[3:6].zero_()
        y = F.linear(x, self.weight, bias).tanh()
        return y + torch.cat((self.left, torch.zeros_like(self.left[:2]), self.right))


class Twice(nn.Module):
    """A weight that is used as it is and, twice, as another one is made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        scaled = self.weight * self.scale.exp()
        return F.linear(F.linear(F.linear(x, self.weight).tanh(), scaled).tanh(), scaled.mT) * self.scale


class Segmenter(nn.Module):
    """Logits [N, K, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, K, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu_())


def vgg() -> nn.Module:
    """torchvision's with a narrower classifier."""
    made = torchvision.models.VGG(torchvision.models.vgg.make_layers([4, "M", 8, "M"], batch_norm=True))
    made.classifier = nn.Sequential(nn.Linear(8 * 7 * 7, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, K))
    return made


def conv(*args: object, dims: int = 2, **options: object) -> Callable[[], nn.Module]:
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    shape = {1: (4, 20), 2: (4, 9, 8), 3: (4, 5, 6, 4)}[dims]
    return lambda: Pooled(kind(4, *args, **options), shape=shape)  # type: ignore[arg-type]


def transposed(*args: object, dims: int = 2, **options: object) -> Callable[[], nn.Module]:
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    shape = {1: (4, 20), 2: (4, 9, 8), 3: (4, 5, 6, 4)}[dims]
    return lambda: Pooled(kind(4, *args, **options), shape=shape)  # type: ignore[arg-type]


def with_parameters(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Callable[[], nn.Module]:
    return lambda: Pooled(With(function, *shapes))


CONVOLUTIONS = {
    "1x1": conv(6, 1, bias=False),
    "1x1 strided": conv(6, 1, stride=(2, 3)),
    "3x3": conv(6, 3, bias=False),
    "3x3 padded": conv(6, 3, padding=1),
    "3x2 padded unevenly": conv(6, (3, 2), padding=(0, 1)),
    "strided": conv(6, 3, stride=(2, 1), padding=1),
    "dilated": conv(6, 3, padding=(1, 2), dilation=(1, 2)),
    "strided and dilated": conv(6, 2, stride=3, dilation=2),
    "same": conv(6, 3, padding="same", dilation=2),
    "same around an even kernel": conv(6, (2, 4), padding="same"),
    "valid": conv(6, 3, padding="valid"),
    "circular": conv(6, 3, padding=1, padding_mode="circular"),
    "reflect": conv(6, 3, padding=2, padding_mode="reflect", stride=2),
    "groups": conv(6, 3, padding=1, groups=2),
    "depthwise": conv(8, 3, padding=1, groups=4, stride=2),
    "1d": conv(6, 3, dims=1, padding=1),
    "1d strided": conv(6, 5, dims=1, stride=2, dilation=2, groups=2, bias=False),
    "1d same": conv(6, 4, dims=1, padding="same"),
    "3d": conv(6, 3, dims=3, padding=(1, 0, 1), stride=(1, 2, 1)),
}
TRANSPOSED = {
    "transposed": transposed(6, 3, bias=False),
    "transposed, strided": transposed(6, 3, stride=2, padding=1, output_padding=1),
    "transposed, uneven": transposed(6, (2, 3), stride=(1, 3), padding=(0, 1), dilation=(2, 1)),
    "transposed groups": transposed(6, 3, groups=2, padding=1),
    "transposed depthwise": transposed(8, 2, groups=4, stride=2),
    "transposed 1x1": transposed(6, 1, stride=2, output_padding=1),
    "transposed 1d": transposed(6, 4, dims=1, stride=2, padding=1),
    "transposed 3d": transposed(6, 2, dims=3, stride=(1, 2, 1)),
}
LINEARS = {
    "linear": lambda: Pooled(nn.Flatten(), nn.Linear(192, 6)),
    "linear without bias": lambda: Pooled(nn.Flatten(), nn.Linear(192, 6, bias=False)),
    "linear on two leading dimensions": lambda: Pooled(nn.Linear(8, 5)),
    "linear on tokens": lambda: Sequence(nn.Linear(8, 8, bias=False)),
}
PRODUCTS = {
    "matmul": with_parameters(lambda x, w: x @ w, (8, 5)),
    "matmul from the left": with_parameters(lambda x, w: w @ x, (5, 8)),
    "matmul by channel": with_parameters(lambda x, w: torch.matmul(x, w), (3, 8, 5)),
    "matmul by channel from the left": with_parameters(lambda x, w: w.matmul(x), (3, 5, 8)),
    "matmul beyond the samples": with_parameters(lambda x, w: (x.flatten(1) @ w).transpose(0, 1), (3, 192, 5)),
    "mm": with_parameters(lambda x, w: x.flatten(1).mm(w), (192, 6)),
    "mm from the left": with_parameters(lambda x, w: torch.mm(w, x.flatten(1).T).T, (6, 192)),
    "bmm": with_parameters(lambda x, w: torch.bmm(x.flatten(2), w.expand(len(x), -1, -1)), (64, 5)),
    "addmm": with_parameters(lambda x, w, b: torch.addmm(b, x.flatten(1), w, beta=0.5, alpha=2), (192, 6), (6,)),
    "baddbmm": with_parameters(lambda x, b: torch.baddbmm(b, x[:, 0], x[:, 1], beta=2), (8, 8)),
    "einsum": with_parameters(lambda x, w: torch.einsum("nchw,wo->ncho", x, w), (8, 5)),
    "einsum of two parameters": with_parameters(
        lambda x, a, b: torch.einsum("n c h w, w k, k c -> n k h", [x, a, b]), (8, 5), (5, 3)
    ),
    "einsum with an ellipsis": with_parameters(lambda x, w: torch.einsum("...w,wo->...o", x, w), (8, 5)),
    "einsum that says no output": with_parameters(lambda x, w: torch.einsum("a...z,zb", x, w).movedim(2, 0), (8, 5)),
    "einsum beside samples": with_parameters(lambda x, w: torch.einsum("nchw,ch->chwn", x, w).movedim(3, 0), (3, 8)),
}
ELEMENTS = {
    "divided": with_parameters(lambda x, p: x / p, (3, 1, 8)),
    "divided by one number": with_parameters(lambda x, p: torch.div(x, p), ()),
    "divider": with_parameters(lambda x, p: p / (1 + x.square()), (8,)),
    "power": with_parameters(lambda x, p: (1 + x.square()) ** p, (3, 1, 1)),
    "base": with_parameters(lambda x, p: p**x, (8,)),
    "subtracted": with_parameters(lambda x, p, q: q - (x - p), (8,), (3, 1, 1)),
    "subtracted in place": with_parameters(lambda x, p: x.tanh().sub_(p, alpha=0.5), (8,)),
    "multiplied in place": with_parameters(lambda x, p: x.tanh().mul_(p), ()),
    "times something broadcast": with_parameters(lambda x, p: p * x.mean(dim=1, keepdim=True), (3, 8, 8)),
    "addcmul": with_parameters(lambda x, p, q: torch.addcmul(p, q, x, value=0.5), (8,), (3, 1, 1)),
    "addcdiv": with_parameters(lambda x, p, q: torch.addcdiv(x, p, q + x.square()), (8,), (3, 1, 1)),
    "maximum": with_parameters(lambda x, p: torch.maximum(x, p), (8,)),
    "lerp": with_parameters(lambda x, p, q: torch.lerp(x, p, q), (8,), (3, 1, 1)),
    "where": with_parameters(lambda x, p: torch.where(x > 0, x, p), (3, 1, 1)),
    "repeated": with_parameters(lambda x, p: torch.cat([x, p.repeat(len(x), 1, 4, 1)], dim=1), (1, 2, 2, 8)),
    "expanded as samples are": with_parameters(lambda x, p: x * p.expand_as(x), (8,)),
    "rows of a table": lambda: Sequence(With(lambda x, p: x + p[x.argmax(dim=2)], (8, 8))),
    "prelu": lambda: Pooled(nn.Conv2d(3, 4, 1), nn.PReLU()),
    "prelu by channel": lambda: Pooled(nn.Conv2d(3, 4, 1), nn.PReLU(4)),
    "global response": with_parameters(global_response, (3,), (3,)),
    "layer scale": with_parameters(lambda x, p: x + p * x.tanh(), (3, 1, 1)),
}
DERIVED = {
    "gate": with_parameters(lambda x, p: x * torch.sigmoid(p), (3, 1, 1)),
    "weight norm": lambda: Pooled(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
    "spectral norm": lambda: Pooled(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))),
    "weight standardisation": with_parameters(standardised, (4, 3, 3, 3), (4, 1, 1, 1)),
    "low rank": with_parameters(lambda x, w, a, b: F.linear(x, w + a @ b), (6, 8), (6, 2), (2, 8)),
    "relative position": lambda: Pooled(Biased(fused=False, masked=False)),
    "relative position, fused": lambda: Pooled(Biased(fused=True, masked=False)),
    "relative position and a mask": lambda: Pooled(Biased(fused=False, masked=True)),
    "relative position and a mask, fused": lambda: Pooled(Biased(fused=True, masked=True)),
    "position network": lambda: Pooled(PositionNetwork()),
    "partly biased": lambda: Pooled(PartlyBiased()),
    "used twice": lambda: Pooled(Twice()),
    "expanded for all samples": with_parameters(lambda x, p: F.linear(x, p.expand(6, -1)), (8,)),
    "read and compared": with_parameters(lambda x, p: x * p * (p > 1) + p.shape[0], (8,)),
}
NORMS = {
    "batch norm 1d": lambda: Pooled(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6)),
    "batch norm 1d on sequences": lambda: Sequence(nn.BatchNorm1d(7)),
    "batch norm 2d": lambda: Pooled(nn.BatchNorm2d(3)),
    "batch norm 2d, no bias of its own": lambda: Pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1), nn.ReLU(True)),
    "group norm": lambda: Pooled(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6)),
    "layer norm": lambda: Sequence(nn.LayerNorm(8)),
    "instance norm": lambda: Pooled(nn.InstanceNorm2d(3, affine=True)),
    "instance norm by running statistics": lambda: Pooled(nn.InstanceNorm2d(3, affine=True, track_running_stats=True)),
    "rms norm": lambda: Sequence(nn.RMSNorm(8)),
    "rms norm on two dimensions": lambda: Pooled(nn.RMSNorm((8, 8), eps=0.1)),
    "layer norm on two dimensions": lambda: Pooled(nn.LayerNorm((8, 8), bias=False)),
}
OTHERS = {
    "embedding": lambda: Sequence(),
    "embedding with padding": lambda: Sequence(padding_idx=-1),
    "attention": lambda: Sequence(Attention(True)),
    "attention, time first": lambda: Sequence(Attention(False)),
    "attention with weights": lambda: Sequence(Attention(False, weights=True)),
    "attention to something else": lambda: Sequence(Attention(True, itself=False)),
    "attention to something narrower": lambda: Sequence(Attention(True, itself=False, kdim=6)),
    "encoder": lambda: Sequence(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
    "encoder, norm first": lambda: Sequence(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)),
    "time first": lambda: Sequence(TimeFirst()),
    "windows": lambda: Folded(inner=False),
    "windows, samples side by side": lambda: Folded(inner=True),
    "reused layers": Reused,
    "tied weights": Tied,
    "raw parameters": Raw,
    "parameters without dimensions": Scalars,
}
NETWORKS = {
    "small-cnn": lambda: architectures.build("small-cnn", 3, K, 4, seed=0),
    "resnet18": lambda: architectures.build("resnet18", 3, K, 4, seed=0),
    "segmenter": Segmenter,
    "torchvision resnet18": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=K
    ),
    "vit": lambda: torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=K, dropout=0.5
    ),
    "vgg": vgg,
}
ENGINE = {**CONVOLUTIONS, **TRANSPOSED, **LINEARS, **PRODUCTS, **NORMS, **ELEMENTS, **DERIVED, **OTHERS, **NETWORKS}


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The model in float64 and eval mode, away from symmetric starts (a ViT's head of zeros), and N inputs for it."""
    torch.manual_seed(0)
    model = ENGINE[name]().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for key, b in model.named_buffers():
            if key.endswith("running_mean"):
                b.normal_(std=0.1)
    if isinstance(model, Sequence | Tied):
        return model, torch.randint(VOCABULARY, (N, *TOKENS))
    dims = model.body[0].weight.ndim - 2 if name in CONVOLUTIONS or name in TRANSPOSED else 0
    shape = {0: PIXELS, 1: (4, 20), 2: (4, 9, 8), 3: (4, 5, 6, 4)}[dims]
    return model, torch.randn(N, *shape, dtype=torch.float64)


class Routed(nn.Module):
    """A path for each sample, by its values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if x.sum() > 0 else self.two(x)


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Sees that modes, weights, gradients, hooks and random numbers are afterwards as they were."""
    before = {name: t.clone() for name, t in model.state_dict().items()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    yield
    assert modes == [m.training for m in model.modules()]
    assert needs == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    for name, p in model.named_parameters():
        assert (p.grad is None) == (gradients[name] is None)
        assert p.grad is None or torch.equal(p.grad, gradients[name])
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert torch.equal(random, torch.get_rng_state())
