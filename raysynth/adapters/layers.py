"""Frozen layers with the low-rank updates of many adapters beside them, routed per batch row.

LoRA (Hu et al. 2021, eq. 3): h = W0 x + s B A x with s = alpha / r, or alpha / sqrt(r) (rsLoRA,
Kalajdzievski 2023, arXiv 2312.03732). DoRA (Liu et al. 2024, arXiv 2402.09353, eq. 5): every row
of V = W0 + s B A is scaled to a length m that is learnt, h = m / ||V|| V x, where the denominator
takes no gradient (their section 4.3); the bias is added as it is. A and B carry a leading adapter
dimension, so that a batch whose rows belong to different adapters costs one `bmm` (or one grouped
convolution) per matrix. Adapters of lower rank are filled up with zeros, to which no gradient
comes and which AdamW leaves as they are.

Shape suffixes: P adapters, K runs of b equal rows (B = K b), L layers, I in, O out, r rank, N
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_NORM = 1e-12
"""Of a row of weights that are all zero, which has no direction: it stays zero."""


@dataclass(frozen=True)
class Form:
    """How one adapter updates one layer."""

    rank: int
    """0: not at all."""
    alpha: float
    rslora: bool = False
    """Whether the update is scaled by alpha / sqrt(rank) instead of alpha / rank."""
    dora: bool = False
    """Whether the lengths of the weights' rows are the adapter's own."""

    @property
    def scale(self) -> float:
        """Of B A."""
        if not self.rank:
            return 0.0
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def plain(self) -> Form:
        """The same update with LoRA's own scale, as formats say it that know no other."""
        return replace(self, alpha=self.scale * self.rank, rslora=False) if self.rslora else self


NONE = Form(0, 0.0)


@dataclass
class Route:
    """Which adapter each run of equal batch rows uses; shared by all layers of a network."""

    rows: int
    runs: Tensor
    """[K] int64 adapter of each run, 0 where there is none; [K, k] where k are fused."""
    scale: Tensor
    """[L, K, 1, 1] of every layer's B A, 0 where there is none; [L, K, k, 1, 1] of fused ones, by
    their weights."""
    dora: Tensor | None
    """[L, K, 1] bool, whose rows have lengths of their own; None where nobody's have."""
    every: bool
    """The runs are all adapters once, in order: the stacks are used as they are."""


@dataclass
class Shared:
    """What all layers of a network read."""

    route: Route | None = None
    scales: Tensor | None = None
    """[L, P] of every layer's B A; None: to be made anew."""
    dora: Tensor | None = None
    """[L, P] bool, made with `scales`."""


class Grouped(nn.Module):
    """A frozen layer with stacked low-rank updates."""

    base: nn.Linear | nn.Conv2d
    A: nn.Parameter
    """[P, r, I, ...]."""
    B: nn.Parameter
    """[P, O, r, ...]."""
    M: nn.Parameter | None
    """[P, O] lengths of the weights' rows; None where no adapter has its own."""
    norms: Tensor | None
    """[P, O] their lengths before, where no adapter changes any more; None: computed each time."""

    def __init__(
        self, base: nn.Linear | nn.Conv2d, forms: Sequence[Form], number: int, shared: Shared
    ) -> None:
        """`forms`: of each adapter; `number`: of the layer among the network's."""
        super().__init__()
        self.base, self.number, self.shared = base, number, shared
        self.restack(forms)

    def restack(self, forms: Sequence[Form]) -> None:
        """Stacks of zeros for adapters of these forms; the old ones are gone."""
        self.forms = list(forms)
        outputs, *kernel = self.base.weight.shape
        ones, rank = [1] * (len(kernel) - 1), max(form.rank for form in forms)
        shapes = {"A": [rank, *kernel], "B": [outputs, rank, *ones], "M": [outputs]}
        device = self.base.weight.device
        for name, shape in shapes.items():
            empty = torch.zeros([len(forms), *shape], device=device)
            kept = name != "M" or any(form.dora for form in forms)
            setattr(self, name, nn.Parameter(empty) if kept else None)
        self.norms = None

    def stacks(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """For input rows x: A [K, r, ...], B [K, O, r] times its scale, gain [K, O] or None, b."""
        route = self.shared.route
        if route is None or x.shape[0] != route.rows:
            raise RuntimeError(
                f"GroupedLoRA: got a batch of {x.shape[0]} rows, expected "
                f"{route.rows if route else 'a call of route() first'}. Fix: route(index) with one "
                "adapter per row of the whole batch (with CFG: of the doubled batch)"
            )
        A, B = (self.A, self.B) if route.every else (self.A[route.runs], self.B[route.runs])
        B_KOr = B.flatten(route.runs.ndim + 1) * route.scale[self.number]
        if route.runs.ndim > 1:  # the updates' sum: their ranks side by side
            A, B_KOr = A.flatten(1, 2), B_KOr.transpose(1, 2).flatten(2)
        gain_KO = self._gain(A, B_KOr, route)
        if gain_KO is not None:
            B_KOr = B_KOr * gain_KO[:, :, None]
        return A.to(x.dtype), B_KOr.to(x.dtype), gain_KO, route.rows // len(route.runs)

    def _gain(self, A: Tensor, B_KOr: Tensor, route: Route) -> Tensor | None:
        """[K, O] lengths of the runs' rows over those that they have by themselves."""
        if route.dora is None or self.M is None:
            return None
        norms = (
            lengths(self.base.weight, A, B_KOr) if self.norms is None else self.norms[route.runs]
        )
        M_KO = self.M if route.every else self.M[route.runs]
        return torch.where(route.dora[self.number], M_KO / norms, 1.0)

    @torch.no_grad()
    def lengths_of(self, position: int) -> Tensor:
        """[O] of the rows of W0 + s B A of one adapter."""
        B_1Or = self.B[position : position + 1].flatten(2) * self.forms[position].scale
        return lengths(self.base.weight, self.A[position : position + 1], B_1Or)[0]

    @torch.no_grad()
    def folded(self, position: int) -> Tensor:
        """[O, I, ...] float32 the weights with one adapter folded in."""
        form = self.forms[position]
        A_rI, B_Or = self.A[position].flatten(1), self.B[position].flatten(1)
        update = (B_Or.float() @ A_rI.float()).mul_(form.scale).view_as(self.base.weight)
        update.add_(self.base.weight)
        if form.dora and self.M is not None:
            gain_O = self.M[position] / self.lengths_of(position)
            update.mul_(gain_O.view(-1, *[1] * (update.ndim - 1)))
        return update


class GroupedLinear(Grouped):
    """A linear layer; x is [B, ..., I]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, ..., O] with each row's adapter applied."""
        h = self.base(x)
        A_KrI, B_KOr, gain_KO, _ = self.stacks(x)
        runs = len(A_KrI)
        h_KNO = h.reshape(runs, -1, h.shape[-1])
        if gain_KO is not None:
            h_KNO = _scaled(h_KNO, gain_KO[:, None], self.base.bias)
        low = torch.bmm(x.reshape(runs, -1, x.shape[-1]), A_KrI.mT)
        return torch.baddbmm(h_KNO, low, B_KOr.mT).view(h.shape)


class GroupedConv2d(Grouped):
    """The same for a convolution: A convolves as the layer does, B is 1x1 (as in PEFT)."""

    base: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """[B, O, H', W'] with each row's adapter applied."""
        h = self.base(x)
        A, B_KOr, gain_KO, b = self.stacks(x)
        h_BON = h.flatten(2)
        if gain_KO is not None:
            bias = self.base.bias
            gain_BO1 = gain_KO.repeat_interleave(b, 0)[:, :, None]
            h_BON = _scaled(h_BON, gain_BO1, None if bias is None else bias[:, None])
        low_BrN = self._pointwise(x, A, b) if self._is_pointwise else self._folded(x, A, b)
        return torch.baddbmm(h_BON, _per_row(B_KOr, b), low_BrN).view(h.shape)

    @property
    def _is_pointwise(self) -> bool:
        return self.base.kernel_size == (1, 1) and self.base.stride == (1, 1)

    def _pointwise(self, x: Tensor, A: Tensor, b: int) -> Tensor:
        return torch.bmm(_per_row(A.flatten(2), b), x.flatten(2))

    def _folded(self, x: Tensor, A: Tensor, b: int) -> Tensor:
        """Runs become channel groups of one grouped convolution (2-5x unfold + bmm on a CPU)."""
        runs, rank = A.shape[:2]
        x_bKIHW = x.view(runs, b, *x.shape[1:]).transpose(0, 1)
        low = F.conv2d(
            x_bKIHW.reshape(b, -1, *x.shape[2:]),
            A.flatten(0, 1),
            stride=self.base.stride,
            padding=self.base.padding,
            groups=runs,
        )
        return low.view(b, runs, rank, -1).transpose(0, 1).reshape(runs * b, rank, -1)


def grouped(
    module: nn.Linear | nn.Conv2d, forms: Sequence[Form], number: int, shared: Shared
) -> Grouped:
    """A layer with stacks of zeros beside it."""
    kind = GroupedConv2d if isinstance(module, nn.Conv2d) else GroupedLinear
    return kind(module, forms, number, shared)


@torch.no_grad()
def lengths(weight: Tensor, A: Tensor, B_KOr: Tensor) -> Tensor:
    """[K, O] float32 lengths of the rows of W0 + B A, without making any of these matrices.

    ||w + b A||^2 = ||w||^2 + 2 b (A w) + b (A A^T) b of a row w of W0 and b of B.

    Parameters
    ----------
    weight : [O, I, ...]; A : [K, r, I, ...]; B_KOr : times its scale.
    """
    with torch.autocast(weight.device.type, enabled=False):
        W_OI, A_KrI, B_KOr = weight.flatten(1).float(), A.flatten(2).float(), B_KOr.float()
        across_OKr = (W_OI @ A_KrI.flatten(0, 1).mT).view(len(W_OI), *A_KrI.shape[:2])
        twice_KOr = 2 * across_OKr.transpose(0, 1) + B_KOr @ (A_KrI @ A_KrI.mT)
        squares_KO = W_OI.square().sum(1) + (B_KOr * twice_KOr).sum(2)
        return squares_KO.clamp(min=LEAST_NORM**2).sqrt()


def _scaled(h: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    """bias + gain (h - bias): in the gain's precision, which is near one, and rounded back."""
    full = h.to(gain.dtype)
    weighed = full * gain if bias is None else torch.lerp(bias.to(gain.dtype), full, gain)
    return weighed.to(h.dtype)


def _per_row(stack_K: Tensor, b: int) -> Tensor:
    """[K, ...] -> [K b, ...]: each run's matrix for each of its rows."""
    return stack_K[:, None].expand(-1, b, -1, -1).reshape(-1, *stack_K.shape[1:])
