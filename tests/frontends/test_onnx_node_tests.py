"""ONNX's own node tests through import and interpreter."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("onnx.backend.test.case.node")

from qcomp.frontends.onnx.coverage import Outcome, check_cases, compare, node_cases
from qcomp.frontends.onnx.reasons import reason_for

# Of the 1,884 cases of onnx 1.23: what passes today.  Only ever raise it.
CASES, PASSED = 1884, 1384


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return check_cases(node_cases())


def test_no_node_test_fails(outcomes: list[Outcome]) -> None:
    assert [(o.name, o.reason) for o in outcomes if o.status == "failed"] == []


def test_the_number_of_passed_node_tests_does_not_fall(outcomes: list[Outcome]) -> None:
    passed = sum(o.status == "passed" for o in outcomes)
    assert passed >= PASSED if len(outcomes) >= CASES else passed / len(outcomes) > 0.7


def test_every_skipped_node_test_has_a_reason(outcomes: list[Outcome]) -> None:
    skipped = Counter(o.reason for o in outcomes if o.status == "skipped")
    for reason, count in skipped.most_common():
        print(f"{count:4d} skipped: {reason}")
    assert all(len(reason) > 10 for reason in skipped)


def test_an_error_that_no_row_explains_is_no_reason_to_skip() -> None:
    assert reason_for("Conv 'c': group 0") == ""


def test_comparison_is_exact_for_integers_and_tolerant_for_floats() -> None:
    import numpy as np

    assert compare(np.int32([1, 2]), np.int32([1, 3]), 1.0, 1.0) == "1 of 2 elements differ"
    assert compare(np.float32([1.0]), np.float32([1.0005]), 1e-3, 1e-7) == ""
    assert compare(np.float32([1.0]), np.float32([1.01]), 1e-3, 1e-7).startswith("largest difference")
    assert compare(np.float32([1.0]), np.float64([1.0]), 1e-3, 1e-7) == "float32[1] instead of float64[1]"
