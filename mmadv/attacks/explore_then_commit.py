"""Short probes of several attacks on each image, and then one long run of the attack that led."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext, Best
from mmadv.attacks.cascade import Cascade
from mmadv.attacks.restarts import evaluated
from mmadv.attacks.result import AttackOutput
from mmadv.errors import UserError
from mmadv.fields import Positive, Probability, checked
from mmadv.registry import ATTACKS

# The leader's run has at least this many times the steps of a probe. The relays share one step in RELAY_SHARE of those
# after the probes, as far as the leader does not need it.
LEADER = 3
RELAY_SHARE = 6
# The number of probes that the steps must cover, so that short attacks have short probes.
PROBES = 6


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class ExploreThenCommit(Cascade):
    """Probes every part on an image, then runs the part that led once, with all iterations that are left.

    This is the explore-then-commit strategy of bandits. The rule is fixed in advance and decides for each image by
    itself:

    - The clean image is the first result. Each part then runs ``probe`` iterations.
    - The part that took most pixels leads. A relay counts by what it took from the strongest result so far.
    - An image stops if all probes together took fewer than ``least_gain`` of its valid pixels, or if no pixel is left
      to flip. It leaves the batch and costs no more passes.
    - On the other images the leader runs from a new start, and then the relays run. A schedule that anneals gains from
      a long run, so the leader has one run and not several. The relays share a sixth of the iterations after the
      probes, as far as these leave ``3 * probe`` for the leader.

    Args:
        attacks: name -> attack or its config, in order, under the same threat model. Their own steps do not matter.
        relays: names of the attacks that start from the strongest result so far; the first cannot be one of them.
        steps: the largest number of iterations for an image, in all runs together.
        probe: iterations of a probe, at most; a sixth of ``steps`` if that is less.
        least_gain: share of the valid pixels that the probes must flip for the long run to follow.
    """

    steps: Positive = 400
    probe: Positive = 20
    least_gain: Probability = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < len(self.attacks):
            raise UserError(
                f'{len(self.attacks)} attacks in turn need at least as many steps together; found {self.steps!r}'
            )

    @checked
    def with_steps(self, steps: Positive) -> ExploreThenCommit:
        """Returns the same attack with at most ``steps`` iterations for an image."""
        return dataclasses.replace(self, steps=steps)

    @property
    def probe_steps(self) -> int:
        """Iterations of each probe."""
        return max(1, min(self.probe, self.steps // max(PROBES, len(self.attacks))))

    @property
    def committed_steps(self) -> tuple[int, int]:
        """Iterations of the leader, and of each relay, after the probes."""
        left = self.steps - len(self.attacks) * self.probe_steps
        spare = max(0, min(left // RELAY_SHARE, left - LEADER * self.probe_steps))
        relay = spare // len(self.relays) if self.relays else 0
        return left - relay * len(self.relays), relay

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        """Returns the strongest result; only the probe of the first attack uses a given ``start``."""
        trial = _Trial(self, context)
        least = self.least_gain * context.valid_pixels
        undone = trial.remaining > 0
        clean, taken = trial.remaining.clone(), []
        for name in self.attacks:
            before = trial.remaining.clone() if name in self.relays else clean
            trial.run(name, undone & (trial.remaining > 0), self.probe_steps, start=start)
            taken.append(before - trial.last)
            start = None
        leader = torch.stack(taken).argmax(0)
        undone &= (trial.remaining > 0) & (clean - trial.remaining >= least)
        leader_steps, relay_steps = self.committed_steps
        for index, name in enumerate(self.attacks if leader_steps else ()):
            trial.run(name, undone & (leader == index), leader_steps, 1)
        for name in self.relays if relay_steps else ():
            trial.run(name, undone & (trial.remaining > 0), relay_steps, 1, 'relay')
        return dataclasses.replace(trial.best.output(), parts=trial.parts())


class _Trial:
    """Runs parts on some of the images. Keeps the strongest image of each, and what each part reached.

    Args:
        attack: the attack with the parts.
        context: its images are the N rows; it counts all passes.

    Attributes:
        best: the strongest images so far.
        last: (N,) pixels that the latest run of a part left to flip; of images without a run, of the clean image.
    """

    def __init__(self, attack: ExploreThenCommit, context: AttackContext) -> None:
        self.attack, self.context = attack, context
        self.best = Best(context, targeted=attack.targeted)
        evaluation = context.evaluate(context.images)
        context.note_clean(evaluation.predictions)
        rows = torch.arange(len(context), device=context.images.device)
        self.best.update(rows, context.images, evaluation)
        self.last = self.remaining.clone()
        most = torch.iinfo(torch.int64).max
        self._reached = {name: torch.full_like(self.last, most) for name in attack.attacks}

    @property
    def remaining(self) -> Tensor:
        """(N,) pixels that are left to flip in the strongest images so far."""
        return self.best.remaining

    def run(self, name: str, chosen: Tensor, steps: int, *keys: object, start: Tensor | None = None) -> None:
        """Runs a part on the images for which ``chosen`` (N,) is True.

        Args:
            name: name of the part.
            chosen: images to attack.
            steps: iterations.
            keys: keys of the noise, beside the name; none for a probe.
            start: (N, C, h, w) first iterate of an attack that is no relay, instead of its own choice.
        """
        if not bool(chosen.any()):
            return
        rows = chosen.nonzero().squeeze(1)
        part = self.context.restrict(chosen).reseed(name, *keys)
        if name in self.attack.relays:
            start = self.best.images
        output = self.attack.attacks[name].with_steps(steps).run(part, None if start is None else start[rows])
        evaluation = evaluated(output, part)
        self.context.count_passes_of(part, chosen)
        self.best.update(rows, output.images, evaluation)
        left = self.best.remaining_pixels(evaluation.correct, part.valid_pixels, self.attack.targeted)
        self.last = self.last.index_copy(0, rows, left)
        self._reached[name] = self._reached[name].index_copy(0, rows, torch.minimum(self._reached[name][rows], left))

    def parts(self) -> dict[str, Tensor]:
        """Returns the accuracy (N,) that each part reached at best, NaN for images that it did not attack."""
        valid, most = self.context.valid_pixels, torch.iinfo(torch.int64).max
        return {
            name: torch.where(
                left < most, self.best.remaining_pixels(left, valid, self.attack.targeted) / valid.double(), torch.nan
            )
            for name, left in self._reached.items()
        }
