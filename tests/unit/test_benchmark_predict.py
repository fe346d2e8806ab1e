"""The arithmetic and the requests of benchmarks/predict.py; nothing here starts a server."""

from __future__ import annotations

import json

import pytest

from backend.labels.config import parse_config
from benchmarks import predict
from benchmarks.predict import Measured


def measured(route: str, clients: int, cpu_ms: float) -> Measured:
    return Measured(route, clients, 100, 50.0, 1.0, 2.0, cpu_ms, 0)


def test_cpu_is_compared_with_health_under_as_many_clients():
    rows = predict.rows_of(
        [
            measured("/health", 1, 0.5),
            measured("/predict", 1, 5.0),
            measured("/health", 10, 1.0),
            measured("/predict", 10, 4.0),
        ]
    )
    assert [row["CPU / that of /health"] for row in rows] == ["1.0", "10.0", "1.0", "4.0"]
    assert [row["clients"] for row in rows] == ["1", "1", "10", "10"]


def test_the_request_holds_one_task_and_eighty_labels():
    body = json.loads(predict.predict_body(7))
    (control,) = parse_config(body["label_config"]).controls
    assert len(control.labels) == 80
    assert body["tasks"] == [{"id": 7, "data": {"image": predict.address(7)}}]


def test_the_measurement_is_bounded_by_default():
    options = predict.parsed([])
    assert options.clients == [1, 10, 50]
    assert 0 < options.requests <= 1000
    assert 0 < options.seconds <= 60


def test_the_page_has_a_place_for_the_table():
    page = predict.PAGE.read_text()
    assert page.count(predict.START) == page.count(predict.END) == 1


@pytest.mark.parametrize("argument", ["--clients", "--requests"])
def test_counts_are_numbers(argument: str):
    with pytest.raises(SystemExit):
        predict.parsed([argument, "many"])
