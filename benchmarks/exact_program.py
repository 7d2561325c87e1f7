"""The fewest pixels that an image of an Linf ball leaves right, by a mixed-integer program solved to proven optimality.

Each pixel and wrong class has a binary variable. It is one only if the logit of the class leads that of the label by
``LEAD``; a big-M constraint says so. Without a lead, pixels of different labels with the same logits would all count as
wrong at a tie. A ReLU has a binary variable for its two sides. Bounds of all constraints come from
interval arithmetic, those of the leads also from linear bounds through the ReLUs, which make M smaller.

The solver has tolerances, so its image may miss a lead. A linear program then makes the smallest lead of the flipped
pixels as large as it can be. The model itself counts the right pixels of that image; both numbers must be equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

# In units of logits; the solver's tolerance is 1e-6.
LEAD = 1e-5
Array = NDArray[np.float64]


class NotProven(RuntimeError):
    """There is no proof: the solver ran out of time, or the model does not confirm its optimum."""


class Segmentor(nn.Module):
    """Returns head(relu(stem(images))), or stem(images) if there is no head.

    Args:
        stem: affine in the images.
        head: affine in its input.
    """

    def __init__(self, stem: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, (N, K, H, W)."""
        hidden = self.stem(images)
        return hidden if self.head is None else self.head(hidden.relu())


@dataclass(frozen=True)
class Affine:
    """matrix · v + offset."""

    matrix: Array
    offset: Array

    @classmethod
    def of(cls, function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Affine:
        """Returns the form of an affine function of tensors of a shape, (C, H, W), in float64."""
        size = int(np.prod(shape))
        with torch.no_grad():
            offset = function(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
            columns = function(torch.eye(size, dtype=torch.float64).view(-1, *shape)).flatten(1) - offset
        return cls(columns.T.numpy(), offset.numpy())

    def after(self, other: Affine) -> Affine:
        """Returns self(other(v))."""
        return Affine(self.matrix @ other.matrix, self.matrix @ other.offset + self.offset)

    def bounds(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Returns the smallest and the largest values over the box of v."""
        up, down = np.maximum(self.matrix, 0), np.minimum(self.matrix, 0)
        return up @ low + down @ high + self.offset, up @ high + down @ low + self.offset


class Program:
    """Variables and constraints of a mixed-integer program."""

    def __init__(self) -> None:
        self._low: list[Array] = []
        self._high: list[Array] = []
        self._binary: list[Array] = []
        self._constraints: list[tuple[list[tuple[int, Array]], Array, Array]] = []
        self._count = 0

    def variables(self, low: Array, high: Array, *, binary: bool = False) -> int:
        """Adds variables between bounds, and returns the index of the first one."""
        first = self._count
        self._count += len(low)
        self._low.append(low)
        self._high.append(high)
        self._binary.append(np.full(len(low), float(binary)))
        return first

    def constrain(self, terms: list[tuple[int, Array]], low: Array, high: Array) -> None:
        """Adds low <= Σ matrix · variables <= high.

        Args:
            terms: the index of the first variable, and the matrix, of each term.
            low: for each row.
            high: for each row.
        """
        self._constraints.append((terms, low, high))

    def fix(self, first: int, values: Array) -> None:
        """Fixes variables that were added together, from the index of the first one, at values."""
        block = list(itertools.accumulate((len(low) for low in self._low), initial=0)).index(first)
        self._low[block] = self._high[block] = values

    def maximise(self, first: int, weights: Array, seconds: float) -> tuple[Array, int]:
        """Returns the best variables, and the largest weights · variables[first:] to the next integer.

        Raises:
            NotProven: the time is over before the solver has a proof.
        """
        cost = np.zeros(self._count)
        cost[first : first + len(weights)] = -weights
        matrices = [self._rows(terms, len(low)) for terms, low, _ in self._constraints]
        lows, highs = (np.concatenate([rows[part] for rows in self._constraints]) for part in (1, 2))
        result = milp(
            cost,
            constraints=LinearConstraint(sparse.vstack(matrices, format='csr'), lows, highs),
            bounds=Bounds(np.concatenate(self._low), np.concatenate(self._high)),
            integrality=np.concatenate(self._binary),
            options={'time_limit': seconds, 'mip_rel_gap': 0},
        )
        if result.status != 0:
            raise NotProven(f'no proof within {seconds} s: {result.message}')
        return result.x, round(-result.fun)

    def _rows(self, terms: list[tuple[int, Array]], count: int) -> sparse.csr_matrix:
        rows = sparse.lil_matrix((count, self._count))
        for first, matrix in terms:
            rows[:, first : first + matrix.shape[1]] = matrix
        return rows.tocsr()


@dataclass(frozen=True)
class Optimum:
    """The fewest right pixels of an image.

    Attributes:
        right: the number.
        image: (C, H, W), an image that leaves this number.
    """

    right: int
    image: Tensor


def fewest_right(model: Segmentor, image: Tensor, labels: Tensor, radius: float, seconds: float = 120) -> Optimum:
    """Returns the fewest right pixels over all images of the ball within [0, 1].

    Args:
        model: in float64.
        image: (C, H, W) float64 in [0, 1].
        labels: (H, W) int64, without void pixels.
        radius: of the Linf ball.
        seconds: limit of the solver.

    Raises:
        NotProven: the solver needs more time, or the model does not confirm its optimum.
    """
    program = Program()
    centre = image.numpy().ravel()
    low, high = np.maximum(centre - radius, 0), np.minimum(centre + radius, 1)
    inputs = pixels = program.variables(low, high)
    sides = None
    stem = Affine.of(model.stem, image.shape)
    if model.head is None:
        leads, owners = leads_of(stem, labels)
        least, most = leads.bounds(low, high)
    else:
        leads, owners = leads_of(Affine.of(model.head, model.stem(image[None]).shape[1:]), labels)
        inputs, sides = add_relus(program, pixels, stem, low, high)
        least, most = lead_bounds(leads, stem, low, high)
    count = len(owners)
    wrong = program.variables(np.zeros(count), (most >= LEAD).astype(float), binary=True)
    # lead >= LEAD - M (1 - wrong), with M = LEAD - the least that the lead can be.
    slack = np.maximum(LEAD - least, 0)
    terms = [(inputs, leads.matrix), (wrong, -np.diag(slack))]
    program.constrain(terms, LEAD - leads.offset - slack, np.full(count, np.inf))
    once = (np.arange(labels.numel())[:, None] == owners).astype(float)
    program.constrain([(wrong, once)], np.zeros(len(once)), np.ones(len(once)))
    solution, flipped = program.maximise(wrong, np.ones(count), seconds)
    for binary in (wrong, sides):
        if binary is not None:
            size = count if binary == wrong else len(stem.offset)
            program.fix(binary, solution[binary : binary + size].round())
    chosen = solution[wrong : wrong + count].round() > 0
    best = with_largest_leads(program, inputs, Affine(leads.matrix[chosen], leads.offset[chosen]), seconds)
    adversarial = torch.from_numpy(np.clip(best[: len(centre)], low, high)).view(image.shape)
    right = int((model(adversarial[None]).argmax(1)[0] == labels).sum())
    if right != labels.numel() - flipped:
        raise NotProven(f'the solver flips {flipped} of {labels.numel()} pixels; the model has {right} of them right')
    return Optimum(right, adversarial)


def with_largest_leads(program: Program, inputs: int, leads: Affine, seconds: float) -> Array:
    """Returns the variables whose smallest lead is largest; all binary variables are fixed."""
    smallest = program.variables(np.array([-1.0]), np.array([1.0]))
    rows = len(leads.offset)
    terms = [(inputs, leads.matrix), (smallest, -np.ones((rows, 1)))]
    program.constrain(terms, -leads.offset, np.full(rows, np.inf))
    return program.maximise(smallest, np.ones(1), seconds)[0]


def leads_of(logits: Affine, labels: Tensor) -> tuple[Affine, NDArray[np.int64]]:
    """Returns u_j - u_y for every pixel and class j other than its label y, and the pixels of the rows."""
    label, count = labels.numpy().ravel(), labels.numel()
    classes = len(logits.offset) // count
    pixel, rival = (part.ravel() for part in np.meshgrid(np.arange(count), np.arange(classes), indexing='ij'))
    others = rival != label[pixel]
    pixel, rival = pixel[others], rival[others]
    to, of = rival * count + pixel, label[pixel] * count + pixel
    return Affine(logits.matrix[to] - logits.matrix[of], logits.offset[to] - logits.offset[of]), pixel


def add_relus(program: Program, pixels: int, stem: Affine, low: Array, high: Array) -> tuple[int, int]:
    """Adds h = relu(a), a = stem(x), and a binary side for each unit; returns the index of the first h and side."""
    least, most = stem.bounds(low, high)
    hidden = program.variables(np.maximum(least, 0), np.maximum(most, 0))
    side = program.variables((least >= 0).astype(float), (most > 0).astype(float), binary=True)
    same, without = np.eye(len(least)), np.full(len(least), np.inf)
    below, above = np.minimum(least, 0), np.maximum(most, 0)
    program.constrain([(pixels, -stem.matrix), (hidden, same)], stem.offset, without)  # h >= a
    terms = [(pixels, -stem.matrix), (hidden, same), (side, -np.diag(below))]
    program.constrain(terms, -without, stem.offset - below)  # h <= a - least (1 - side)
    program.constrain([(hidden, same), (side, -np.diag(above))], -without, np.zeros(len(least)))  # h <= most side
    return hidden, side


def lead_bounds(leads: Affine, stem: Affine, low: Array, high: Array) -> tuple[Array, Array]:
    """Returns bounds of leads(relu(stem(x))): the better of intervals and of linear bounds of the ReLUs.

    A ReLU of a in [l, u], l < 0 < u, lies between 0 or a and the chord u (a - l) / (u - l).
    """
    least, most = stem.bounds(low, high)
    below, above = np.minimum(least, 0), np.maximum(most, 0)
    chord = above / np.maximum(above - below, 1e-12)
    floor = (most > -least).astype(float)

    def lowest(form: Affine) -> Array:
        up, down = np.maximum(form.matrix, 0), np.minimum(form.matrix, 0)
        linear = Affine(up * floor + down * chord, form.offset - down @ (chord * below))
        return linear.after(stem).bounds(low, high)[0]

    first = leads.bounds(np.maximum(least, 0), above)
    return np.maximum(first[0], lowest(leads)), np.minimum(first[1], -lowest(Affine(-leads.matrix, -leads.offset)))
