"""The annealed margin: a squashed margin of the logits, in units that shrink as the attack goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.objectives import CrossEntropyTracked
from mmadv.attacks.pixel_scores import PixelScores, rows_of
from mmadv.errors import UserError, nearest
from mmadv.registry import OBJECTIVES

SQUASHES = ('atan', 'sigmoid')
RIVALS = ('logsumexp', 'max')
LEAST_SCALE = 1e-3
# A temperature below this share of a pixel's largest logit only changes the range of the numbers, not the result.
LEAST_SHARE = 1e-15
# A rival that is this far behind the first one counts as 1e-20 of it. Smaller numbers would soon be denormal and slow.
LEAST_EXPONENT = -46.0


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class AnnealedMargin(CrossEntropyTracked):
    """-atan(m) or sigmoid(-m) of the margin m = u_y / T - log Σ_{j≠y} exp(u_j / T), with a falling temperature T.

    The squashing reduces the gradient at pixels that are clearly fooled and at pixels that are out of reach. As T
    falls, only the pixels at the boundary keep a gradient, and the objective tends to a count of wrong pixels.

    T = T0 · hi · (lo / hi)^progress. T0 makes the objective independent of the logits' scale. Per image, T0 is the mean
    of u_y - max_{j≠y} u_j over the valid pixels that are still correct, at least 1e-3. (Targeted: the mean of
    max_{j≠y} u_j - u_y over the pixels that are not yet the target.) T0 is measured at the first evaluation of an
    attack and then stays fixed. The objective keeps no state, so the attack passes ``Evaluation.scale`` of its first
    evaluation to the later ones. Without that scale, as in a plain call or inside PGD and APGD, T0 is measured on the
    logits at hand. T0 is not differentiated.

    Pixels that are flipped already can have a lower weight. At full weight they are held at their wrong class. This
    helps if few pixels flip. Logits can saturate, as behind the layer norm of a Segmenter's masks. Then flipped pixels
    crowd at the boundary and leave the other pixels without a share of the step.

    Args:
        squash: 'atan', whose gradient falls with m squared, or 'sigmoid', whose gradient falls exponentially with m.
        rival: 'logsumexp', the smooth maximum over the other classes, or 'max', their largest logit.
        temperatures: hi and lo, in units of T0.
        flipped_weight: weight of the pixels that the attack has flipped, in [0, 1]; the others have weight 1.
    """

    squash: str = 'atan'
    rival: str = 'logsumexp'
    temperatures: tuple[float, float] = (0.3, 0.02)
    flipped_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.squash not in SQUASHES:
            raise UserError(f"AnnealedMargin: unknown squash '{self.squash}'{nearest(str(self.squash), SQUASHES)}")
        if self.rival not in RIVALS:
            raise UserError(f"AnnealedMargin: unknown rival '{self.rival}'{nearest(str(self.rival), RIVALS)}")
        temperatures = tuple(float(value) for value in self.temperatures)
        if len(temperatures) != 2 or not 1e-4 <= temperatures[1] <= temperatures[0] <= 1e4:
            raise UserError(
                f'AnnealedMargin: temperatures must be two numbers from 1e-4 to 1e4, the higher first; '
                f'found {self.temperatures}'
            )
        object.__setattr__(self, 'temperatures', temperatures)
        if not 0 <= self.flipped_weight <= 1:
            raise UserError(f'AnnealedMargin: flipped_weight must lie in [0, 1]; found {self.flipped_weight}')

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        margin = self.margin(scores, self.temperature(scores, progress))
        return self._squashed(margin) * self._weight(scores)

    def _squashed(self, margin: Tensor) -> Tensor:
        return -torch.atan(margin) if self.squash == 'atan' else torch.sigmoid(-margin)

    def _weight(self, scores: PixelScores) -> Tensor:
        """Returns the weight of each pixel, (N, H, W)."""
        weight = torch.ones_like(scores.label_logit.detach())
        return weight if self.flipped_weight == 1 else weight.masked_fill_(~self.pending(scores), self.flipped_weight)

    def logit_gradient(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns (slope of the squash) / T · (softmax of the others - onehot); see ``Objective.logit_gradient``."""
        if self.rival == 'max':
            return super().logit_gradient(scores, progress)
        weight = torch.where(scores.valid, self._weight(scores), 0)
        if self.targeted:
            weight.neg_()
        pixels = (scores.label_logit, self.temperature(scores, progress), weight)
        gradient = scores.take_logits()
        for part in rows_of(gradient, scores.indices, *(of_pixel.unsqueeze(1) for of_pixel in pixels)):
            self._overwrite(*part)
        return gradient

    def _overwrite(
        self, logits: Tensor, indices: Tensor, label_logit: Tensor, temperature: Tensor, weight: Tensor
    ) -> None:
        """Writes the gradient over the logits of some rows, (N, K, h, W).

        Args:
            logits: of the rows.
            indices: (N, 1, h, W) labels.
            label_logit: (N, 1, h, W).
            temperature: (N, 1, h, W).
            weight: (N, 1, h, W) of each pixel in the sum, negative if its loss is minimised.
        """
        # The memory of the logits holds (u_j - u_y) / T, then the exponentials of that, then the gradient.
        logits.sub_(label_logit).div_(temperature).scatter_(1, indices, -torch.inf)
        largest = logits.amax(1, keepdim=True)
        total = logits.sub_(largest).clamp_min_(LEAST_EXPONENT).exp_().sum(1, keepdim=True)
        lead = -(largest + total.log())
        logits.scatter_(1, indices, -total)
        slope = 1 / (1 + lead.square()) if self.squash == 'atan' else torch.sigmoid(lead) * torch.sigmoid(-lead)
        logits.mul_(weight * (slope / (temperature * total)))

    def margin(self, scores: PixelScores, temperature: Tensor) -> Tensor:
        """Returns m, (N, H, W): the lead of the label over its rivals, in units of the temperature.

        Args:
            scores: logits and labels.
            temperature: (N, H, W).
        """
        if self.rival == 'max':
            return (scores.label_logit - scores.rival_logit) / temperature
        others = scores.logits.scatter(1, scores.indices, -torch.inf)
        return -torch.logsumexp((others - scores.label_logit.unsqueeze(1)) / temperature.unsqueeze(1), dim=1)

    def temperature(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns T, (N, H, W).

        T is the same at every pixel of an image, except at pixels whose largest logit is more than 1e15 times T.
        """
        if scores.scale is None:
            scores.scale = self.scale(scores)
        high, low = self.temperatures
        temperature = (scores.scale * (high * (low / high) ** progress)).view(-1, 1, 1)
        if LEAST_SHARE * scores.magnitude < LEAST_SCALE * low:  # no pixel has such a logit
            return temperature.expand(scores.labels.shape)
        return torch.maximum(temperature, LEAST_SHARE * scores.largest.squeeze(1))

    def scale(self, scores: PixelScores) -> Tensor:
        """Returns T0, (N,), in the unit of the logits."""
        lead = (scores.label_logit - scores.rival_logit).detach()
        pending = self.pending(scores) & scores.valid
        count = pending.flatten(1).sum(1).clamp_min(1)
        # The division comes first: a sum of margins near the largest float would overflow.
        share = torch.where(pending, -lead if self.targeted else lead, 0) / count.view(-1, 1, 1)
        return share.flatten(1).sum(1).clamp_min(LEAST_SCALE)
