"""The objective on one page: multi-scale L1, then a relativistic GAN with a lazy gradient
penalty. Pure functions of tensors; knows no files, devices or logs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Critic = Callable[[Tensor, Tensor, Tensor], Tensor]  # pixels, text, vendor -> logit [B]


def reconstruction(made: Tensor, real: Tensor) -> Tensor:
    """L1 at 64, 32 and 16 pixels plus L1 of the finite differences: the coarse scales carry
    the shape, the differences keep edges where plain L1 settles for a blur."""
    total = (made - real).abs().mean()
    for cell in (2, 4):
        total = total + (F.avg_pool2d(made, cell) - F.avg_pool2d(real, cell)).abs().mean()
    for axis in (2, 3):
        total = total + (made.diff(dim=axis) - real.diff(dim=axis)).abs().mean()
    return total


def critic_loss(
    critic: Critic, real: Tensor, made: Tensor, *, text: Tensor, vendor: Tensor, other: Tensor
) -> Tensor:
    """Relativistic pairing (Jolicoeur-Martineau 2018; R3GAN, Huang et al. 2024, eq. 2 with
    f(t) = -softplus(-t)): a real picture must score above the made one of its caption, and
    above itself under another row's caption `other` (Reed et al. 2016, algorithm 1)."""
    truth = critic(real, text, vendor)
    lie = critic(made.detach(), text, vendor)
    wrong = critic(real, other, vendor)
    return F.softplus(lie - truth).mean() + 0.5 * F.softplus(wrong - truth).mean()


def generator_loss(
    critic: Critic, real: Tensor, made: Tensor, *, text: Tensor, vendor: Tensor
) -> Tensor:
    """The other side of the same pairing: made should score above real."""
    with torch.no_grad():
        truth = critic(real, text, vendor)
    return F.softplus(truth - critic(made, text, vendor)).mean()


def gradient_penalty(critic: Critic, real: Tensor, *, text: Tensor, vendor: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018, eq. 9): half the squared gradient at real pictures. The
    caller runs it every k-th step and multiplies by k (StyleGAN2, appendix B)."""
    pixels = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(pixels, text, vendor).sum(), pixels, create_graph=True)
    return 0.5 * gradient.square().sum((1, 2, 3)).mean()
