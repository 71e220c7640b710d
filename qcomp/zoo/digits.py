"""A small multilayer perceptron on scikit-learn's 8 x 8 digits, trained here in numpy within a second."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcomp.zoo import cache, packages
from qcomp.zoo.case import Array, Case, accuracy, best_class

INPUT = "input"
LAYERS = (64, 48, 32, 10)
TEST_DIGITS, CALIBRATION_DIGITS = 600, 200
EPOCHS, BATCH, LEARNING_RATE = 60, 32, 2e-3


def case() -> Case:
    """600 test digits; trained on the other 1,197, of which 200 serve as calibration."""
    images, labels = digits()
    train = slice(0, len(images) - TEST_DIGITS)
    test = slice(len(images) - TEST_DIGITS, len(images))
    model = cache.cached("models/digits_mlp-v1.onnx", lambda path: _write(path, images[train], labels[train]))
    return Case(
        name="digits_mlp",
        onnx_path=model,
        shapes={INPUT: (1, LAYERS[0])},
        calibration_inputs={INPUT: images[train][:CALIBRATION_DIGITS]},
        test_inputs={INPUT: images[test]},
        labels=labels[test],
        metric=accuracy(labels[test]),
        answers=best_class(lambda: list("0123456789")),
        reference={"top1": 0.983, "onnxruntime_int8_top1": 0.983},
        notes=["calibration: 200 of the digits it was trained on"],
    )


def digits() -> tuple[Array, Array]:
    """scikit-learn's digits in a fixed random order: float32 [1797, 64] in [0, 1], int64 [1797]."""
    data = packages.resource(packages.python_package("scikit-learn"), "sklearn/datasets/data/digits.csv.gz")
    with gzip.open(data, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(8).permutation(len(table))]
    return (table[:, :64] / 16).astype(np.float32), table[:, 64]


def _train(images: Array, labels: Array) -> list[tuple[Array, Array]]:
    """Weights [in, out] and biases [out] a layer: ReLU, softmax cross-entropy, Adam (arXiv:1412.6980)."""
    random = np.random.default_rng(0)
    shapes = list(zip(LAYERS[:-1], LAYERS[1:], strict=True))
    parameters = [random.standard_normal(shape) * np.sqrt(2 / shape[0]) for shape in shapes]
    parameters += [np.zeros(shape[1]) for shape in shapes]
    first = [np.zeros_like(parameter) for parameter in parameters]
    second = [np.zeros_like(parameter) for parameter in parameters]
    depth, step = len(shapes), 0
    for _ in range(EPOCHS):
        order = random.permutation(len(images))
        for start in range(0, len(images), BATCH):
            chosen = order[start : start + BATCH]
            activations = [images[chosen].astype(np.float64)]
            for layer in range(depth):
                x = activations[-1] @ parameters[layer] + parameters[depth + layer]
                activations.append(np.maximum(x, 0) if layer < depth - 1 else x)
            logits = activations[-1] - activations[-1].max(axis=1, keepdims=True)
            slope = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            slope[np.arange(len(chosen)), labels[chosen]] -= 1
            slope /= len(chosen)
            gradients = [np.zeros(0)] * len(parameters)
            for layer in reversed(range(depth)):
                gradients[layer] = activations[layer].T @ slope
                gradients[depth + layer] = slope.sum(axis=0)
                slope = (slope @ parameters[layer].T) * (activations[layer] > 0)
            step += 1
            for index, gradient in enumerate(gradients):
                first[index] = 0.9 * first[index] + 0.1 * gradient
                second[index] = 0.999 * second[index] + 0.001 * gradient**2
                mean, deviation = first[index] / (1 - 0.9**step), np.sqrt(second[index] / (1 - 0.999**step))
                parameters[index] -= LEARNING_RATE * mean / (deviation + 1e-8)
    return [
        (parameters[layer].astype(np.float32), parameters[depth + layer].astype(np.float32))
        for layer in range(depth)
    ]


def _write(path: Path, images: Array, labels: Array) -> None:
    cache.progress("training digits_mlp")
    nodes, constants, value = [], [], INPUT
    for index, (weights, bias) in enumerate(_train(images, labels)):
        constants += [
            numpy_helper.from_array(weights, f"w{index}"),
            numpy_helper.from_array(bias, f"b{index}"),
        ]
        last = index == len(LAYERS) - 2
        dense = "logits" if last else f"dense{index}"
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [dense]))
        value = dense
        if not last:
            value = f"relu{index}"
            nodes.append(helper.make_node("Relu", [dense], [value]))
    graph = helper.make_graph(
        nodes,
        "digits_mlp",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", LAYERS[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LAYERS[-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
