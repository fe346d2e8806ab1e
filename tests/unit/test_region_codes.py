"""Regions in one byte a value: directions survive, and the same vector has the same code."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.storage import region_codes


def vectors(dim: int, seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(50, 9, dim))
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dim", [8, 512, 1024])
def test_directions_survive(dim: int):
    values = vectors(dim)
    again = region_codes.decode(region_codes.encode(values)).astype(np.float64)
    assert np.abs(np.linalg.norm(again, axis=-1) - 1.0).max() < 2e-3
    assert ((again * values).sum(axis=-1) / np.linalg.norm(again, axis=-1)).min() > 0.9999


def test_a_vector_that_was_stored_as_float16_has_the_same_code():
    values = vectors(512)
    wide = region_codes.encode(values.astype(np.float16))
    assert np.array_equal(region_codes.encode(values), wide)


def test_a_vector_has_the_same_code_alone_and_among_others():
    values = vectors(64)
    assert np.array_equal(region_codes.encode(values)[3, 5], region_codes.encode(values[3, 5]))
    codes = region_codes.encode(values)
    assert np.array_equal(region_codes.decode(codes)[3, 5], region_codes.decode(codes[3, 5]))


def test_no_vector_at_all_and_a_vector_of_zeros_are_no_error():
    assert region_codes.decode(region_codes.encode(np.zeros((0, 9, 8)))).shape == (0, 9, 8)
    assert not region_codes.decode(region_codes.encode(np.zeros((9, 8)))).any()
