"""Batched L-BFGS: one small problem per label, all labels at once, each with its own step length.

The labels' problems share the images X, so their Hessians are nearly multiples of X^T X plus the
penalty. In the eigenbasis of X^T X that matrix is diagonal; as the initial Hessian of L-BFGS it
saves most of the iterations. Logits are linear in the parameters, so a line search costs no matrix
product: there are two products per iteration, whatever the number of trial steps.

Source: Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006, chapters 3 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.vlpl.objectives import Terms, gradient, loss

HISTORY = 8
"""Pairs of changes that approximate the Hessian."""
MAX_HALVINGS = 20
"""Of the step length, in a line search."""
ARMIJO = 1e-4
"""Share of the decrease predicted by the slope that a step has to reach."""


@dataclass(frozen=True)
class Design:
    """Images in the eigenbasis, plus one column for each label alone.

    Attributes:
        x: (N, R) float32, columns orthogonal, shared by all labels.
        z: (N, C) float32, the anchor score; its column belongs to one label.
    """

    x: Tensor
    z: Tensor

    def forward(self, theta: Tensor) -> Tensor:
        """X W + a z + b, (N, C), where theta (R + 2, C) stacks W (R, C), a (1, C) and b (1, C)."""
        rank = self.x.shape[1]
        return torch.addcmul(theta[rank + 1] + self.x @ theta[:rank], self.z, theta[rank])

    def backward(self, grad: Tensor) -> Tensor:
        """The transpose of `forward`: (N, C) to (R + 2, C)."""
        return torch.cat(
            [self.x.T @ grad, (self.z * grad).sum(0, keepdim=True), grad.sum(0, keepdim=True)]
        )


@dataclass(frozen=True)
class _Line:
    """The objective along a direction, with one step length per label.

    Attributes:
        theta: (R + 2, C), where the line starts.
        direction: (R + 2, C).
        logits: (N, C) at theta.
        along: (N, C), change of the logits per unit step.
        terms: coefficients of the objective.
        penalty: (R + 2, 1) or (R + 2, C).
    """

    theta: Tensor
    direction: Tensor
    logits: Tensor
    along: Tensor
    terms: Terms
    penalty: Tensor

    def value(self, step: Tensor) -> Tensor:
        """Objective of each label, (C,) float64, for step lengths (C,)."""
        moved = self.theta + step * self.direction
        data = loss(self.logits + step * self.along, self.terms)
        return data.double() + 0.5 * (self.penalty * moved * moved).sum(0).double()


@dataclass(frozen=True)
class Solution:
    """The result of `minimise`.

    Attributes:
        theta: (R + 2, C), see `Design.forward`.
        iterations: number of iterations used.
        residual: the largest |gradient| / N that remained.
    """

    theta: Tensor
    iterations: int
    residual: float


def minimise(
    design: Design,
    offset: Tensor,
    terms: Terms,
    *,
    penalty: Tensor,
    curvature: Tensor,
    start: Tensor,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> Solution:
    """Minimise sum_n loss(offset + forward(theta)) + penalty theta^2 / 2 for every label.

    Args:
        design: the images.
        offset: (N, C), the fixed part of the logits.
        terms: coefficients of the objective, (N, C) each.
        penalty: (R + 2, 1) or (R + 2, C), > 0.
        curvature: (R + 2, C), > 0: diagonal of the initial Hessian, penalty included.
        start: (R + 2, C), initial theta.
        tolerance: a label is done when its largest |gradient| / N is at most this.
        max_iterations: upper limit.
    """
    theta = start.clone()
    logits = offset + design.forward(theta)
    rows = max(len(offset), 1)

    def slope(at: Tensor, parameters: Tensor) -> Tensor:
        return design.backward(gradient(at, terms)) + penalty * parameters

    grad = slope(logits, theta)
    still = _Line(theta, torch.zeros_like(theta), logits, torch.zeros_like(logits), terms, penalty)
    value = still.value(torch.zeros_like(theta[0]))
    memory: list[tuple[Tensor, Tensor, Tensor]] = []
    iteration = 0
    while iteration < max_iterations:
        # A label that is done takes no further step: its result must not depend on other labels.
        active = grad.abs().amax(0) / rows > tolerance
        if not bool(active.any()):
            break
        iteration += 1
        direction = -_two_loop(grad, memory, curvature) * active
        descent = (direction * grad).sum(0)
        uphill = active & (descent >= 0)
        if bool(uphill.any()):
            direction = torch.where(uphill, -grad / curvature, direction)
            descent = (direction * grad).sum(0)
        along = design.forward(direction)

        line = _Line(theta, direction, logits, along, terms, penalty)
        step, value, moved = _search(line, value, descent.double(), active)
        if not moved:
            break
        change = step * direction
        theta = theta + change
        logits = logits + step * along
        fresh = slope(logits, theta)
        difference = fresh - grad
        inner = (change * difference).sum(0)
        usable = inner > 1e-10 * (change * change).sum(0)
        rho = torch.where(usable, 1.0 / inner.where(usable, 1.0), 0.0)
        memory = [*memory, (change, difference, rho)][-HISTORY:]
        grad = fresh
    return Solution(theta, iteration, float(grad.abs().max()) / rows)


def _two_loop(
    grad: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]], curvature: Tensor
) -> Tensor:
    """Inverse Hessian times gradient (Nocedal and Wright, algorithm 7.4); rho = 0 skips a pair."""
    result = grad
    alphas: list[Tensor] = []
    for change, difference, rho in reversed(memory):
        alpha = rho * (change * result).sum(0)
        alphas.append(alpha)
        result = result - alpha * difference
    result = result / curvature
    for (change, difference, rho), alpha in zip(memory, reversed(alphas), strict=True):
        beta = rho * (difference * result).sum(0)
        result = result + (alpha - beta) * change
    return result


def _search(
    line: _Line, value: Tensor, descent: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, bool]:
    """Backtracking line search per label: (step (C,), new values (C,), whether any label moved)."""
    step = active.float()
    # float32 sums carry noise of this size; without the slack a converged label accepts no step.
    slack = 1e-6 * value.abs() + 1e-9
    for _ in range(MAX_HALVINGS):
        fresh = line.value(step)
        good = fresh <= value + ARMIJO * step.double() * descent + slack
        good |= ~active
        if bool(good.all()):
            return step, fresh, bool((step > 0).any())
        step = torch.where(good, step, step * 0.5)
    step = torch.where(good, step, 0.0)
    return step, line.value(step), bool((step > 0).any())
