"""The method, on tensors only: zero-shot scores, heads, training, calibration, metrics."""
