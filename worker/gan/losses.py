"""The objective on one page. Pure functions of tensors; knows no files, devices or logs.

Generator:  λ_G L_G + λ_text L_C(made) + anchor · R(made, real)
Critic:     λ_D L_D + λ_text L_C(real) + γ R1(real)

L_D, L_G  a game of two, by logits: the minimax game of the papers (Goodfellow et al. 2014, eq. 1)
          or the relativistic pairing that replaces it (Jolicoeur-Martineau 2018)
L_C       which concept a picture shows: AC-GAN's auxiliary classification (Odena et al. 2017)
R         `reconstruction`, and where asked the perceptual distance beside it (`resemblance`:
          Johnson et al. 2016, eq. 2)
R1        `gradient_penalty`, every k-th step and then k-fold

λ_G, λ_D, λ_text, anchor and γ are settings of a run (`batches.Plan`). Until the critic joins, R is
all there is. Around it: both players' pictures are augmented alike before the critic sees them
(DiffAugment, Zhao et al. 2020: `views.augment`), and what ships is the moving average of the
generator (Yazıcı et al. 2019: `Checkpoint.follow`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

UNNAMED = -1  # the concept of a picture that shows none of those counted


def reconstruction(made: Tensor, real: Tensor) -> Tensor:
    """L1 at 64, 32 and 16 pixels plus L1 of the finite differences: the coarse scales carry
    the shape, the differences keep edges where plain L1 settles for a blur."""
    total = (made - real).abs().mean()
    for cell in (2, 4):
        total = total + (F.avg_pool2d(made, cell) - F.avg_pool2d(real, cell)).abs().mean()
    for axis in (2, 3):
        total = total + (made.diff(dim=axis) - real.diff(dim=axis)).abs().mean()
    return total


def minimax_critic_loss(truth: Tensor, lie: Tensor, wrong: Tensor) -> Tensor:
    """Logits [B] of real pictures, of made ones, and of real ones under another row's caption
    (Reed et al. 2016, algorithm 1). Goodfellow et al. 2014, eq. 1, with D = sigmoid(logit):
    -log D(real) - log(1 - D(made)), and half of the latter for `wrong`."""
    return F.softplus(-truth).mean() + F.softplus(lie).mean() + 0.5 * F.softplus(wrong).mean()


def minimax_generator_loss(_truth: Tensor, lie: Tensor) -> Tensor:
    """-log D(made), which has the fixed point of eq. 1 and a gradient where the critic is sure
    (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-lie).mean()


def relativistic_critic_loss(truth: Tensor, lie: Tensor, wrong: Tensor) -> Tensor:
    """As R3GAN has it (Huang et al. 2024, eq. 2 with f(t) = -softplus(-t)): a real picture must
    score above the made one of its caption, and above itself under another's."""
    return F.softplus(lie - truth).mean() + 0.5 * F.softplus(wrong - truth).mean()


def relativistic_generator_loss(truth: Tensor, lie: Tensor) -> Tensor:
    """The other side of the same pairing: made should score above real."""
    return F.softplus(truth - lie).mean()


@dataclass(frozen=True, slots=True)
class Game:
    """L_D of the logits (truth, lie, wrong), and L_G of (truth, lie)."""

    critic: Callable[[Tensor, Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


GAMES = {
    "relativistic": Game(relativistic_critic_loss, relativistic_generator_loss),
    "minimax": Game(minimax_critic_loss, minimax_generator_loss),
}


def naming(logits: Tensor, concept: Tensor) -> Tensor:
    """L_C: cross-entropy of logits [B, C] and concepts [B]; an `UNNAMED` row counts as nought.
    The critic learns it from real pictures alone, since a made one need not show what it should;
    the generator, that its pictures are named rightly."""
    told = F.cross_entropy(logits, concept, ignore_index=UNNAMED, reduction="sum")
    return told / len(concept)


def gradient_penalty(
    critic: Callable[[Tensor, Tensor, Tensor], Tensor],
    real: Tensor,
    *,
    text: Tensor,
    vendor: Tensor,
) -> Tensor:
    """R1 (Mescheder et al. 2018, eq. 9): half the squared gradient at real pictures of the
    critic's logit [B] under text and vendor. The caller runs it every k-th step and multiplies by
    k (StyleGAN2, appendix B)."""
    pixels = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(pixels, text, vendor).sum(), pixels, create_graph=True)
    return 0.5 * gradient.square().sum((1, 2, 3)).mean()
