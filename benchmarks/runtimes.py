"""Other runtimes for an image tower on the CPU, beside PyTorch and its 8-bit layers.

`uv run --with openvino --with nncf --with onnx --with onnxruntime python -m benchmarks.runtimes
[--model ViT-B-32] [--compile] [--no-write]`: CPU milliseconds of an image on one thread, so that
other programs disturb little, and the least cosine to the embeddings of float32, at random weights.
All runtimes take turns. Those that are not installed are left out; none is a dependency.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from backend.cli.markdown import table
from backend.encoders.image_tower import ImageTower, Normalise
from backend.encoders.int8 import to_int8
from backend.encoders.preprocessing import TensorPreprocessing
from backend.evaluation.machine import machine
from benchmarks.encoding import best_seconds, images
from benchmarks.report import put

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- runtimes: written by benchmarks/runtimes.py -->", "<!-- end of runtimes -->"
BATCH, SIZE = 8, 224

Run = Callable[[], Any]


def of_torch(tower: ImageTower, pixels: torch.Tensor, compiled: bool) -> dict[str, Run]:
    """PyTorch as it is, our 8-bit layers, and its compiler."""
    rounded = copy.deepcopy(tower)
    to_int8(rounded)
    runs: dict[str, Run] = {
        "PyTorch, float32": lambda: tower(pixels).numpy(),
        "PyTorch, int8 (ours)": lambda: rounded(pixels).numpy(),
    }
    if compiled:
        fast: Any = torch.compile(tower)
        runs["torch.compile, float32"] = lambda: fast(pixels).numpy()
    return runs


def of_openvino(tower: ImageTower, pixels: torch.Tensor) -> dict[str, Run]:
    """OpenVINO: float32, int8 calibrated with the same images, and int8 by each batch."""
    openvino, nncf = importlib.import_module("openvino"), importlib.import_module("nncf")
    shape = openvino.PartialShape([-1, 3, SIZE, SIZE])
    model = openvino.convert_model(tower, example_input=pixels, input=[(shape, openvino.Type.u8)])

    def compiled(network: Any, **options: str) -> Run:
        settings = {"INFERENCE_NUM_THREADS": "1", "INFERENCE_PRECISION_HINT": "f32", **options}
        request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
        return lambda: request.infer([pixels.numpy()])[0]

    calibration = nncf.Dataset([pixels[start : start + 4].numpy() for start in range(0, BATCH, 4)])
    static = nncf.quantize(model, calibration, model_type=nncf.ModelType.TRANSFORMER)
    dynamic = nncf.compress_weights(model.clone(), mode=nncf.CompressWeightsMode.INT8_SYM)
    return {
        "OpenVINO, float32": compiled(model),
        "OpenVINO, int8, calibrated": compiled(static),
        "OpenVINO, int8, dynamic": compiled(dynamic, DYNAMIC_QUANTIZATION_GROUP_SIZE="768"),
    }


def of_onnx(tower: ImageTower, pixels: torch.Tensor, folder: Path) -> dict[str, Run]:
    """ONNX Runtime: float32, and int8 by each batch."""
    runtime = importlib.import_module("onnxruntime")
    quantization = importlib.import_module("onnxruntime.quantization")
    exact, rounded = folder / "exact.onnx", folder / "rounded.onnx"
    # With gradients, attention takes no path that ONNX does not know.
    with torch.enable_grad():
        torch.onnx.export(tower, (pixels,), str(exact), dynamo=False, input_names=["pixels"])
    quantization.quantize_dynamic(
        exact, rounded, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True
    )

    def session(path: Path) -> Run:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        opened = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda: opened.run(None, {"pixels": pixels.numpy()})[0]

    return {
        "ONNX Runtime, float32": session(exact),
        "ONNX Runtime, int8, dynamic": session(rounded),
    }


def measure(model: str, compiled: bool, rounds: int) -> list[dict[str, str]]:
    """A row for each runtime."""
    torch.manual_seed(0)
    clip = open_clip.create_model(model).eval()
    norm = Normalise((0.48, 0.46, 0.41), (0.27, 0.26, 0.28), torch.float32)
    tower = ImageTower(clip.visual, norm).eval()
    preprocessing = TensorPreprocessing(SIZE, "shortest", "bicubic", tiled=False)
    pixels = torch.cat([preprocessing.prepare(image) for image in images(None)[:BATCH]])
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        runs |= of_torch(tower, pixels, compiled)
        for build in (of_openvino, partial(of_onnx, folder=Path(folder))):
            try:
                with torch.inference_mode(False), torch.no_grad():
                    runs |= build(tower, pixels.clone())
            except ImportError as error:
                print(f"left out: {error}", flush=True)
        best = best_seconds(runs, rounds, time.process_time)
        exact = np.asarray(runs["PyTorch, float32"]())
        cosines = {
            name: float((np.asarray(run()).reshape(exact.shape) * exact).sum(-1).min())
            for name, run in runs.items()
        }
    plain = best["PyTorch, float32"]
    return [
        {
            "model": model,
            "runtime": name,
            "ms": f"{1000 * spent / BATCH:.0f}",
            "times as fast": f"{plain / spent:.2f}",
            "least cosine": f"{cosines[name]:.4f}",
        }
        for name, spent in best.items()
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["ViT-B-32", "ViT-B-16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile, too (minutes)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row for model in options.model for row in measure(model, options.compile, options.rounds)
    ]
    packages = []
    for name in ("openvino", "onnxruntime"):
        try:
            packages.append(f"{name} {version(name)}")
        except ImportError:
            continue
    text = f"{table(rows)}\n\n{', '.join([machine(), *packages])}; {time.strftime('%Y-%m-%d')}."
    print(text)
    if not options.no_write:
        put(PAGE, START, END, text)


if __name__ == "__main__":
    main()
