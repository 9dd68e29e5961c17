"""Ways to write work: each is counted, elementwise, free, refused, or a named limit."""

from __future__ import annotations

import ctypes
import io
import json
import pickle
import queue
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional as F
from torch.nn.attention import flex_attention as flex
from torch.utils._python_dispatch import _disable_current_modes
from torchvision.ops import deform_conv2d
from toys import grey_images

import effattack
from effattack.counting.macs import MacsCounter, register
from effattack.errors import ContractError, EffattackError, UnknownOperator, UnseenWork, UsageError
from effattack.victim import Opaque, audit
from effattack.victim.checks import check_seen

made = Generator().manual_seed(0)


def r(*shape: int) -> Tensor:
    return torch.rand(shape, generator=made)


def c(*shape: int) -> Tensor:
    return torch.complex(r(*shape), r(*shape))


def pruned(*shape: int) -> Tensor:
    """A matrix of which about a third is left."""
    return r(*shape) * (r(*shape) < 0.35)


def counted(function: Callable[[], Any], inference: bool = False) -> tuple[int, int]:
    """MACs, and elements of elementwise work."""
    with torch.inference_mode(inference), torch.no_grad(), MacsCounter() as counter:
        function()
    return counter.total, counter.elementwise


w, v, blocks = pruned(6, 5), pruned(5, 4), r(6, 6)
nnz, stored_blocks = int((w != 0).sum()), 36
pairs = int(((w != 0).sum(0) * (v != 0).sum(1)).sum())
x64, square, vectors = r(4, 5), r(3, 3), r(3, 4)
q, k = r(1, 2, 16, 8), r(1, 2, 24, 8)
padded = nn.TransformerEncoder(
    nn.TransformerEncoderLayer(16, 4, 40, batch_first=True), 1, enable_nested_tensor=True
).eval()
tokens, padding = r(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
bags = torch.tensor([[0, 1], [1, 2]])
scripted = torch.jit.script(torch.nn.CosineSimilarity())


@torch.jit.script
def forked(a: Tensor) -> Tensor:
    return torch.jit.wait(torch.jit.fork(torch.mm, a, a))


COUNTED: dict[str, tuple[Callable[[], Any], int]] = {
    "csr @ dense": (lambda: w.to_sparse_csr() @ r(5, 3), nnz * 3),
    "coo @ dense": (lambda: w.to_sparse() @ r(5, 3), nnz * 3),
    "csc @ dense": (lambda: w.to_sparse_csc() @ r(5, 3), nnz * 3),
    "bsr @ dense": (lambda: blocks.to_sparse_bsr((2, 2)) @ r(6, 3), stored_blocks * 3),
    "linear, csr": (lambda: F.linear(x64, w.to_sparse_csr()), nnz * 4),
    "linear, csr, bias": (lambda: F.linear(x64, w.to_sparse_csr(), r(6)), nnz * 4),
    "linear, coo": (lambda: F.linear(x64, w.to_sparse()), nnz * 4),
    "linear, csc": (lambda: F.linear(x64, w.to_sparse_csc()), nnz * 4),
    "linear, bsr": (lambda: F.linear(r(4, 6), blocks.to_sparse_bsr((2, 2))), stored_blocks * 4),
    "coo @ vector": (lambda: w.to_sparse() @ r(5), nnz),
    "csr @ vector": (lambda: w.to_sparse_csr() @ r(5), nnz),
    "vector @ coo": (lambda: r(6) @ w.to_sparse(), nnz),
    "coo @ coo": (lambda: w.to_sparse() @ v.to_sparse(), pairs),
    "csr @ csr": (lambda: w.to_sparse_csr() @ v.to_sparse_csr(), pairs),
    "torch.sparse.mm": (lambda: torch.sparse.mm(w.to_sparse(), r(5, 3)), nnz * 3),
    "torch.sparse.addmm": (lambda: torch.sparse.addmm(r(6, 3), w.to_sparse(), r(5, 3)), nnz * 3),
    "addmm, csr": (lambda: torch.addmm(r(6, 3), w.to_sparse_csr(), r(5, 3)), nnz * 3),
    "sampled_addmm": (
        lambda: torch.sparse.sampled_addmm(w.to_sparse_csr(), r(6, 7), r(7, 5)),
        nnz * 7,
    ),
    "sspaddmm": (lambda: torch.sspaddmm(r(6, 3).to_sparse(), w.to_sparse(), r(5, 3)), nnz * 3),
    "sparse.mm, reduced": (lambda: torch.sparse.mm(w.to_sparse_csr(), r(5, 3), "amax"), nnz * 3),
    "bmm, coo": (lambda: torch.bmm(r(2, 3, 4).to_sparse(), r(2, 4, 5)), 2 * 3 * 4 * 5),
    "complex mm": (lambda: c(2, 3) @ c(3, 4), 4 * 24),
    "complex bmm": (lambda: torch.bmm(c(2, 2, 3), c(2, 3, 4)), 4 * 48),
    "complex addmm": (lambda: torch.addmm(c(2, 4), c(2, 3), c(3, 4)), 4 * 24),
    "complex mv": (lambda: c(2, 3) @ c(3), 4 * 6),
    "complex dot": (lambda: torch.dot(c(3), c(3)), 4 * 3),
    "complex vdot": (lambda: torch.vdot(c(3), c(3)), 4 * 3),
    "complex convolution, as three real ones": (
        lambda: F.conv2d(c(1, 2, 5, 5), c(3, 2, 3, 3)),
        3 * 3 * 9 * 2 * 9,
    ),
    "cond": (lambda: torch.cond(x64.sum() > 0, lambda a: a @ a.T, torch.sum, (x64,)), 80),
    "cond, other branch": (
        lambda: torch.cond(x64.sum() < 0, lambda a: a @ a.T, lambda a: a[:, :4] + 1, (x64,)),
        0,
    ),
    "while_loop": (
        lambda: while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, y @ y), (torch.tensor(0), square)
        ),
        3 * 27,
    ),
    "map": (lambda: map_rows(lambda a, b: a @ b, r(5, 2, 3), square), 5 * 18),
    "flex_attention": (lambda: flex.flex_attention(q, k, k), 2 * 16 * 24 * 16),
    "flex_attention, score_mod": (
        lambda: flex.flex_attention(q, k, k, score_mod=lambda s, b, h, i, j: s + i - j),
        2 * 16 * 24 * 16,
    ),
    "jit.fork": (lambda: forked(square), 27),
    "checkpoint": (
        lambda: torch.utils.checkpoint.checkpoint(torch.mm, square, square, use_reentrant=False),
        27,
    ),
    "vmap": (lambda: torch.vmap(lambda a: a @ square)(r(5, 2, 3)), 90),
    "vecdot": (lambda: torch.linalg.vecdot(vectors, vectors), 12),
    "complex vecdot": (lambda: torch.linalg.vecdot(c(3, 4), c(3, 4)), 4 * 12),
    "inner": (lambda: torch.inner(r(2, 3), r(4, 3)), 24),
    "tensordot": (lambda: torch.tensordot(r(2, 3), r(3, 4), 1), 24),
    "einsum of three": (lambda: torch.einsum("ij,jk,kl->il", r(2, 3), r(3, 4), r(4, 5)), 64),
    "einsum of rows": (lambda: torch.einsum("ij,ij->i", vectors, vectors), 12),
    "multi_dot": (lambda: torch.linalg.multi_dot([r(2, 3), r(3, 4), r(4, 5)]), 64),
    "chain_matmul": (lambda: torch.chain_matmul(r(2, 3), r(3, 4), r(4, 5)), 64),
    "matrix_power": (lambda: torch.linalg.matrix_power(square, 3), 2 * 27),
    "bilinear": (lambda: F.bilinear(r(2, 3), r(2, 4), r(5, 3, 4)), 2 * 5 * 4 * (3 + 1)),
    "cdist": (lambda: torch.cdist(r(3, 4), r(5, 4)), 3 * 5 * 4),
    "cdist, by products": (lambda: torch.cdist(r(30, 4), r(30, 4)), 30 * 30 * 4),
    "pdist": (lambda: F.pdist(r(5, 4)), 10 * 4),
    "cov": (lambda: torch.cov(r(3, 4)), 3 * 4 * 3),
    "embedding_bag, weighted": (
        lambda: F.embedding_bag(bags, r(5, 3), mode="sum", per_sample_weights=r(2, 2)),
        4 * 3,
    ),
    "affine_grid": (lambda: F.affine_grid(r(1, 2, 3), [1, 1, 4, 4]), 16 * 2 * 3),
    "conv_tbc": (lambda: torch.conv_tbc(r(5, 2, 3), r(3, 3, 4), r(4)), 3 * 2 * 4 * 9),
    "deform_conv2d": (
        lambda: deform_conv2d(r(2, 4, 5, 5), r(2, 18, 3, 3), r(6, 2, 3, 3)),
        2 * 6 * 9 * 2 * 9,
    ),
    "cosine_similarity": (lambda: F.cosine_similarity(r(2, 3), r(2, 3)), 6),
    "nested linear": (
        lambda: F.linear(torch.nested.nested_tensor([r(2, 4), r(3, 4)]), r(6, 4)),
        5 * 4 * 6,
    ),
    "nested products": (
        lambda: (
            torch.nested.nested_tensor([r(2, 4), r(3, 4)])
            @ torch.nested.nested_tensor([r(4, 2), r(4, 2)])
        ),
        5 * 4 * 2,
    ),
    "jagged linear": (
        lambda: F.linear(
            torch.nested.nested_tensor([r(2, 4), r(3, 4)], layout=torch.jagged), r(6, 4)
        ),
        5 * 4 * 6,
    ),
    "padded encoder": (
        lambda: padded(tokens, src_key_padding_mask=padding),
        4 * 8 * 16 * 16 + 2 * 2 * 5 * 5 * 16 + 2 * 8 * 16 * 40,
    ),
}
"""What contracts: name -> a function, its MACs in closed form."""


@pytest.mark.parametrize("inference", [False, True], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.filterwarnings("ignore")
def test_counted(name: str, inference: bool) -> None:
    function, expected = COUNTED[name]
    assert counted(function, inference)[0] == expected


@pytest.mark.filterwarnings("ignore")
def test_scan_counts_what_ran() -> None:
    """Torch 2.8 runs the function once more, for the shapes."""
    xs = r(2, 3)
    runs = 0

    def step(carry: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal runs
        runs += 1
        return carry @ carry, x * 2

    assert counted(lambda: scan(step, square, xs)) == (27 * runs, 3 * runs)


ELEMENTWISE: dict[str, tuple[Callable[[], Any], int]] = {
    "mul": (lambda: vectors * vectors, 12),
    "broadcast mul + sum": (lambda: (r(3, 1, 4) * r(1, 3, 4)).sum(-1), 36),
    "mul in place": (lambda: r(3, 4).mul_(2.5), 12),
    "addcmul": (lambda: torch.addcmul(r(3), r(3), r(3)), 3),
    "outer": (lambda: torch.outer(r(2), r(3)), 6),
    "addr": (lambda: torch.addr(r(2, 3), r(2), r(3)), 6),
    "kron": (lambda: torch.kron(r(2, 2), r(3, 3)), 36),
    "cross": (lambda: torch.linalg.cross(r(2, 3), r(2, 3)), 6),
    "cumsum": (lambda: vectors.cumsum(0), 12),
    "cumprod": (lambda: vectors.cumprod(0), 12),
    "unfold + mul": (lambda: (F.unfold(r(1, 2, 4, 4), 3) * r(1, 18, 4)).sum(1), 72),
    "grid_sample": (lambda: F.grid_sample(r(1, 1, 4, 4), r(1, 3, 3, 2), align_corners=False), 9),
    "bicubic": (lambda: F.interpolate(r(1, 1, 4, 4), size=8, mode="bicubic"), 64),
    "bilinear": (lambda: F.interpolate(r(1, 1, 4, 4), size=8, mode="bilinear"), 64),
    "avg_pool": (lambda: F.avg_pool2d(r(1, 2, 4, 4), 2), 8),
    "adaptive_avg_pool": (lambda: F.adaptive_avg_pool2d(r(1, 2, 4, 4), 2), 8),
    "index_add": (lambda: torch.zeros(3).index_add(0, torch.tensor([0, 2]), r(2)), 3),
    "weight_norm": (lambda: torch._weight_norm(r(3, 4), r(3, 1)), 12),
    "layer_norm": (lambda: F.layer_norm(vectors, (4,)), 12),
    "batch_norm": (lambda: F.batch_norm(vectors, torch.zeros(4), torch.ones(4)), 12),
    "softmax": (lambda: vectors.softmax(1), 12),
    "gelu": (lambda: F.gelu(vectors), 12),
    "sparse mul": (lambda: w.to_sparse() * 2.0, nnz),
    "embedding_bag, mean": (lambda: F.embedding_bag(bags, r(5, 3), mode="mean"), 0),
}
"""What works element by element: name -> a function, elements."""


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.filterwarnings("ignore")
def test_elementwise_work_stands_beside_macs(name: str) -> None:
    function, expected = ELEMENTWISE[name]
    assert counted(function) == (0, expected)


MOVES: dict[str, Callable[[], Any]] = {
    "cat": lambda: torch.cat([vectors, vectors]),
    "gather": lambda: vectors.gather(1, torch.tensor([[0], [1], [2]])),
    "index": lambda: vectors[torch.tensor([0, 2])],
    "copy": lambda: vectors.clone().contiguous(),
    "compare": lambda: (vectors > 0.5).any(),
    "add": lambda: vectors + vectors,
    "relu": lambda: vectors.relu(),
    "max_pool": lambda: F.max_pool2d(r(1, 1, 4, 4), 2),
    "sum": lambda: vectors.sum(),
    "record_function": lambda: torch.profiler.record_function("stem").__enter__(),
    "nested padding": lambda: torch.nested.nested_tensor([r(2, 4), r(3, 4)]).to_padded_tensor(0.0),
    "nested from mask": lambda: torch._nested_tensor_from_mask(tokens, ~padding),
    "to_sparse": lambda: w.to_sparse().coalesce().to_dense(),
    "to_sparse_csr": lambda: w.to_sparse_csr().to_dense(),
    "read for a branch": lambda: (vectors.max().item(), vectors.tolist(), bool(vectors.any())),
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.filterwarnings("ignore")
def test_moves_are_free(name: str) -> None:
    assert counted(MOVES[name]) == (0, 0)


@pytest.mark.parametrize(
    "function",
    [lambda: torch.fft.fft(r(4)), lambda: torch.linalg.inv(square), lambda: square.matrix_exp()],
    ids=["fft", "inv", "matrix_exp"],
)
def test_what_has_no_formula_is_refused(function: Callable[[], Any]) -> None:
    with pytest.raises(UnknownOperator, match="register"):
        counted(function)


# whole victims: values from outside


class Model(nn.Module):
    """A linear stem, and then what the test is about: (features, its weight) -> logits."""

    def __init__(self, head: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(16, 4), head
        self.weight = nn.Parameter(r(4, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images.flatten(1)), self.weight)


STEM = 16 * 4


def victim(head: Callable[[Tensor, Tensor], Tensor]) -> Opaque:
    torch.manual_seed(0)
    return Opaque(Model(head), (1, 4, 4), name="mine")


def arrays(h: Tensor, weight: Tensor) -> np.ndarray:
    return h.detach().numpy() @ weight.detach().numpy()


def in_place(h: Tensor, weight: Tensor) -> Tensor:
    array = h.detach().numpy()
    array *= 1.5
    return h @ weight


def by_pointer(h: Tensor, weight: Tensor) -> Tensor:
    first = ctypes.c_float.from_address(h.data_ptr())
    first.value = first.value * 3
    return h @ weight


class Buffered:
    """A head that computes into memory which a tensor shares."""

    def __init__(self) -> None:
        self.logits = torch.zeros(1, 3)
        self.array = self.logits.numpy()

    def __call__(self, h: Tensor, weight: Tensor) -> Tensor:
        self.array[:] = arrays(h, weight)
        return self.logits * 1.0


class Lasting:
    """A head that writes by numpy into memory which its next operator reads, and keeps it."""

    def __init__(self) -> None:
        self.kept, self.head = torch.zeros(1, 3), nn.Linear(3, 3)

    def __call__(self, h: Tensor, weight: Tensor) -> Tensor:
        self.kept.numpy()[:] = arrays(h, weight)
        return self.head(self.kept)


class LastingBias(Lasting):
    """The same, in the bias of a layer."""

    def __call__(self, h: Tensor, weight: Tensor) -> Tensor:
        self.head.bias.data.numpy()[:] = arrays(h, weight)[0]
        return self.head(h[:, :3])


def saved(h: Tensor, weight: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(torch.from_numpy(arrays(h, weight)), file)
    file.seek(0)
    logits: Tensor = torch.load(file)
    return logits


def left(h: Tensor, weight: Tensor) -> Tensor:
    with _disable_current_modes():
        return h @ weight


def left_in_c(h: Tensor, weight: Tensor) -> Tensor:
    with torch._C._DisableTorchDispatch():
        return h @ weight


def copied(h: Tensor, weight: Tensor) -> Tensor:
    return torch.empty(1, 3).copy_(torch.from_numpy(arrays(h, weight)))


def set_item(h: Tensor, weight: Tensor) -> Tensor:
    logits = h @ weight
    logits[0, 0] = h.sum().item() * 0.5
    return logits


def whole(h: Tensor) -> int:
    return int(h.sum().item() * 1000)


def by_bytes(h: Tensor, weight: Tensor) -> Tensor:
    logits = torch.zeros(1, 3)
    storage = logits.untyped_storage()
    for place, byte in enumerate(arrays(h, weight).tobytes()):
        storage[place] = byte
    return logits * 1.0


class OtherSize:
    """A head that reads a length from each image, and fills tensors of that length."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, h: Tensor, weight: Tensor) -> Tensor:
        self.calls += 1
        length = 3 + self.calls
        positions = torch.arange(length - 1, -1, -1) + torch.full((length,), length)
        return h @ weight + positions[-3:] * 0.1


def sums(h: Tensor, weight: Tensor) -> list[list[float]]:
    columns = weight.T.tolist()
    return [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in columns]
        for row in h.tolist()
    ]


FROM_OUTSIDE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "from_numpy": lambda h, w: torch.from_numpy(arrays(h, w)),
    "as_tensor of an array": lambda h, w: torch.as_tensor(arrays(h, w)),
    "as_tensor of a list": lambda h, w: torch.as_tensor(sums(h, w)),
    "tensor of a list": lambda h, w: torch.tensor(sums(h, w)),
    "new_tensor": lambda h, w: h.new_tensor(sums(h, w)) * 1.0,
    "FloatTensor": lambda h, w: torch.FloatTensor(sums(h, w)),
    "frombuffer": lambda h, w: torch.frombuffer(arrays(h, w).copy(), dtype=torch.float32)[None],
    "integers from numpy": lambda h, w: torch.from_numpy((arrays(h, w) * 99).astype(int)) * 0.01,
    "DLPack of numpy": lambda h, w: torch.from_dlpack(arrays(h, w)),
    "DLPack round trip": lambda h, w: torch.from_dlpack(h.detach().numpy() * 2) @ w,
    "copy_": copied,
    "pickle": lambda h, w: pickle.loads(pickle.dumps(torch.from_numpy(arrays(h, w)))),
    "torch.load": saved,
    "setitem": set_item,
    "tensor of a number": lambda h, w: (h @ w) * torch.tensor(h.sum().item() * 2),
    "number": lambda h, w: (h @ w) * h.sum().item(),
    "number added": lambda h, w: torch.add(h @ w, h[:, :3], alpha=float(h.detach().numpy()[0, 0])),
    "full": lambda h, w: (h @ w) + torch.full((1, 3), h.sum().item()),
    "full of a whole number": lambda h, w: (h @ w) + torch.full((1, 3), whole(h)),
    "fill_ with a whole number": lambda h, w: (h @ w).fill_(whole(h)),
    "masked_fill with a whole number": lambda h, w: (y := h @ w).masked_fill(y > -9, whole(h)),
    "arange from a whole number": lambda h, w: (h @ w) + torch.arange(whole(h), whole(h) + 3),
    "scalar_tensor": lambda h, w: (h @ w) + torch.scalar_tensor(whole(h)),
    "where of a whole number": lambda h, w: torch.where(h @ w > -9, whole(h), 0) * 1.0,
    "bytes of a storage": by_bytes,
    "fill_": lambda h, w: (h @ w).fill_(h.mean().item()),
    "numpy in place": in_place,
    "pointer": by_pointer,
    "shared buffer": Buffered(),
    "lasting buffer": Lasting(),
    "lasting bias": LastingBias(),
    "modes left": left,
    "dispatch left": left_in_c,
}


@pytest.mark.parametrize("name", FROM_OUTSIDE)
def test_values_from_outside_are_refused(name: str) -> None:
    model = victim(FROM_OUTSIDE[name])
    remedy = r"mine: .*line \d+.*depends on the input and decides.*effattack\.outside"
    with pytest.raises(UnseenWork, match=remedy):
        audit(model, grey_images(1))
    with pytest.raises(UnseenWork, match=remedy):
        check_seen(model, grey_images(1))


anchors = torch.arange(3.0)
table = np.ones((4, 3), dtype=np.float32)


def branched(h: Tensor, weight: Tensor) -> Tensor:
    rows = [i for i, row in enumerate(h.tolist()) if max(row) > -9 and h[i].sum().item() > -99]
    return h[rows] @ weight if bool((h > -9).all()) else h[:, :3]


class OtherWeight:
    """A head that adds what it computed to an image that comes again, and a weight to others."""

    def __init__(self) -> None:
        self.last, self.bias = torch.zeros(1, 4), torch.ones(1, 3)

    def __call__(self, h: Tensor, weight: Tensor) -> Tensor:
        again = bool((h == self.last).all())
        self.last, own = h.clone(), h[:, :3] * 2
        return h @ weight + (own if again else self.bias) + self.bias


def remembered(h: Tensor, weight: Tensor) -> Tensor:
    branched.last = torch.tensor(h.sum().item())  # type: ignore[attr-defined]
    return h @ weight


FROM_INSIDE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "a constant list": (lambda h, w: (h @ w) * torch.tensor([0.485, 0.456, 0.406]), 12),
    "a constant array": (lambda h, w: h @ torch.from_numpy(table), 12),
    "a constant elsewhere": (lambda h, w: h @ w + anchors, 12),
    "sizes": (lambda h, w: (h @ w) / torch.tensor(h.shape[1]) + torch.full((3,), h.shape[0]), 12),
    "numbers": (lambda h, w: (h @ w) * 0.3 + 1e-6, 12),
    "arange": (lambda h, w: h @ w + torch.linspace(0.0, 0.5, 3), 12),
    "branches": (branched, 12),
    "a complex constant": (lambda h, w: h @ w + torch.full((3,), 2 + 1j).real, 12),
    "lengths that differ": (OtherSize(), 12),
    "a weight in place of a result": (OtherWeight(), 12),
    "places": (lambda h, w: (h @ w)[:, torch.tensor(h[0, :3].argsort().tolist())], 12),
    "a number that is kept": (remembered, 12),
    "detached data": (lambda h, w: h.detach().data @ w.data, 12),
    "sparse weights": (lambda h, w: h @ w.detach().to_sparse_csr(), 12),
}


@pytest.mark.parametrize("name", FROM_INSIDE)
@pytest.mark.filterwarnings("ignore")
def test_constants_and_branches_are_free(name: str) -> None:
    head, macs = FROM_INSIDE[name]
    model = victim(head)
    assert audit(model, grey_images(3)).macs.tolist() == [STEM + macs] * 3
    assert check_seen(model, grey_images(3)) == []


def test_a_path_that_no_earlier_image_took_is_examined() -> None:
    def late(h: Tensor, weight: Tensor) -> Tensor:
        if h.sum() > boundary:
            return torch.from_numpy(arrays(h, weight))
        return h @ weight

    boundary = float("inf")
    model, images = victim(late), grey_images(4)
    with torch.no_grad():
        sums = model.model.stem(images.flatten(1)).sum(1)
    images, boundary = images[sums.argsort()], sums.sort().values[-2:].mean().item()
    assert len(audit(model, images[:3]).macs) == 3
    with pytest.raises(UnseenWork, match="from_numpy"):
        audit(model, images)


# other threads and processes


pool, threads = ThreadPoolExecutor(1), ThreadPool(1)


def in_a_thread(h: Tensor, weight: Tensor) -> Tensor:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(h.detach() @ weight.detach()))
    thread.start()
    thread.join()
    return found[0]


class Standing:
    """A thread that was made before, fed by a queue."""

    def __init__(self) -> None:
        self.todo: queue.Queue[Any] = queue.Queue()
        self.done: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            h, weight = self.todo.get()
            self.done.put(h @ weight)

    def __call__(self, h: Tensor, weight: Tensor) -> Tensor:
        self.todo.put((h.detach(), weight.detach()))
        return self.done.get()


class Locked(Standing):
    """The same, fed by means that show nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.todo = queue.SimpleQueue()  # type: ignore[assignment]
        threading.Thread(target=self.work, daemon=True).start()


locked = Locked()


def in_a_process(h: Tensor, weight: Tensor) -> Tensor:
    subprocess.run(["true"], check=True)
    return h @ weight


ELSEWHERE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "thread": (in_a_thread, "Thread.start"),
    "standing pool": (
        lambda h, w: pool.submit(torch.mm, h.detach(), w.detach()).result(),
        "ThreadPoolExecutor.submit",
    ),
    "mapped pool": (
        lambda h, w: next(iter(pool.map(torch.mm, [h.detach()], [w.detach()]))),
        "ThreadPoolExecutor.submit",
    ),
    "new pool": (
        lambda h, w: ThreadPoolExecutor(1).submit(torch.mm, h.detach(), w.detach()).result(),
        "ThreadPoolExecutor.submit",
    ),
    "multiprocessing pool": (
        lambda h, w: threads.apply(torch.mm, (h.detach(), w.detach())),
        "Pool.apply_async",
    ),
    "standing thread": (Standing(), "Condition.notify"),
    "standing thread, unseen handover": (locked, "no operator made"),
    "process": (in_a_process, "Popen"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_threads_and_processes_are_refused(name: str) -> None:
    head, named = ELSEWHERE[name]
    model = victim(head)
    with pytest.raises(UnseenWork, match=rf"{named}.*effattack\.outside"):
        audit(model, grey_images(1))
    assert model(grey_images(1)).shape == (1, 3), "outside of counting, nothing is in the way"


def test_other_threads_may_go_on_meanwhile() -> None:
    """The counting thread is watched, and no other."""
    with MacsCounter() as counter:
        pass
    standing, failed = Standing(), []

    def feed() -> None:
        try:
            standing(r(1, 4), r(4, 3))
        except EffattackError as error:
            failed.append(error)

    feeder = threading.Thread(target=feed)
    go = threading.Event()
    waiting = threading.Thread(target=lambda: (go.wait(), feed()))
    waiting.start()
    with pytest.raises(UnseenWork), MacsCounter():
        go.set()
    go.set()
    waiting.join()
    feeder.start()
    feeder.join()
    assert not failed
    assert counter.total == 0


def test_nothing_stays_patched() -> None:
    before = threading.Thread.start, subprocess.Popen.__init__
    with MacsCounter(), MacsCounter():
        assert threading.Thread.start is not before[0]
    assert (threading.Thread.start, subprocess.Popen.__init__) == before


def test_declared_work_is_allowed_named_and_timed() -> None:
    def head(h: Tensor, weight: Tensor) -> Tensor:
        with effattack.outside("decode"):
            logits = torch.from_numpy(arrays(h, weight))
        with effattack.outside("vote"):
            return pool.submit(torch.add, logits, 0.0).result() + h @ weight

    model = victim(head)
    found = audit(model, grey_images(2))
    assert found.macs.tolist() == [STEM + 12] * 2, "what the counter sees is counted there, too"
    assert [set(image) for image in found.outside] == [{"decode", "vote"}] * 2
    assert all(seconds > 0 for image in found.outside for seconds in image.values())
    assert check_seen(model, grey_images(2)) == []


def test_the_report_tells_declared_work_and_elementwise_work() -> None:
    def head(h: Tensor, weight: Tensor) -> Tensor:
        with effattack.outside("decode"):
            logits = torch.from_numpy(arrays(h, weight))
        return logits * 2.0

    labels = torch.zeros(2, dtype=torch.long)
    found = effattack.evaluate(victim(head), grey_images(2), labels, ["QueryAttack"], timed=0)
    assert set(found.samples.elementwise) == set(found.samples.clean_elementwise) == {3.0}
    assert all(set(json.loads(image)) == {"decode"} for image in found.samples.outside)
    assert any(" ms per input in decode, " in note for note in found.meta["notes"])


def test_undeclared_work_before_declared_work_is_refused() -> None:
    def head(h: Tensor, weight: Tensor) -> Tensor:
        logits = torch.from_numpy(arrays(h, weight)) * 1.0
        with effattack.outside("decode"):
            return logits

    with pytest.raises(UnseenWork):
        audit(victim(head), grey_images(1))


def test_register_inside_forward_is_refused() -> None:
    def head(h: Tensor, weight: Tensor) -> Tensor:
        register("aten.mm", None)
        return h @ weight

    model = Opaque(Model(lambda h, w: h @ w), (1, 4, 4))
    model.model.head = head
    with pytest.raises(UsageError, match=r"register\('aten.mm'.*while MACs are counted"):
        audit(model, grey_images(1))


def test_a_path_without_macs_is_no_pass() -> None:
    class Pooled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :3] * 2

    with pytest.raises(ContractError, match="multiplies nothing at all"):
        audit(Opaque(Pooled(), (1, 4, 4)), grey_images(1))


# named limits: what is neither counted nor refused (docs/measurement.md)


def after_an_empty_block(h: Tensor, weight: Tensor) -> Tensor:
    with effattack.outside("nothing"):
        pass
    return torch.from_numpy(arrays(h, weight))


LIMITS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "work that only decides a branch": (
        lambda h, w: h @ w if arrays(h, w).max() > -99 else h[:, :3],
        12,
    ),
    "work that only decides places": (
        lambda h, w: w.T[torch.from_numpy(arrays(h, w).argsort(1))[:, 0]][:, :3] @ w[:3],
        9,
    ),
    "a thread, woken unseen, that only decides a branch": (
        lambda h, w: h @ w if locked(h, w).max() > -99 else h[:, :3],
        12,
    ),
    "whole numbers": (lambda h, w: (h @ w) * int(arrays(h, w).sum() * 1000), 12),
    "undeclared work after a declared block": (after_an_empty_block, 0),
}


@pytest.mark.parametrize("name", LIMITS)
def test_named_limit(name: str) -> None:
    head, macs = LIMITS[name]
    assert audit(victim(head), grey_images(2)).macs.tolist() == [STEM + macs] * 2


def test_named_limit_flex_attention_counts_blocks_that_its_mask_leaves_out() -> None:
    x = r(1, 1, 256, 8)
    mask = flex.create_block_mask(lambda b, h, i, j: i >= j, 1, 1, 256, 256, device="cpu")
    assert counted(lambda: flex.flex_attention(x, x, x, block_mask=mask))[0] == 256 * 256 * 16


def test_named_limit_scripted_products_that_are_summed_count_as_macs() -> None:
    @torch.jit.script
    def weighted(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(-1)

    assert counted(lambda: weighted(vectors, vectors)) == (12, 0)


@pytest.mark.parametrize(
    ("function", "elements"),
    [
        (lambda: F.pairwise_distance(vectors, vectors), 3),
        (lambda: (vectors - 1.0).norm(dim=-1), 3),
        (lambda: vectors.var(-1), 3),
        (lambda: F.kl_div(vectors, vectors, reduction="sum"), 2 * 12),
    ],
    ids=["pairwise_distance", "norm", "var", "kl_div"],
)
def test_named_limit_norms_variances_and_divergences_count_no_macs(
    function: Callable[[], Any], elements: int
) -> None:
    assert counted(function) == (0, elements)
