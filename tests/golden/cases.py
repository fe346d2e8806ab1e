"""The inputs: photos, projects, labeling configs and tasks of the fixture store."""

from __future__ import annotations

from typing import Any

from tests.golden.adapter import DEMO_LABELS

PHOTOS = 36
CREATED = 1795416973
TRAINED, MEASURED, BARE, KNOWN = (f"{number}.{CREATED}" for number in (1, 2, 3, 4))
"""Projects of the store: with heads; with statistics; with nothing; with a known-label field."""
KNOWN_FIELD = "category"
RUN = "f00d00000001"
"""The run whose files are in the store."""

IMAGE = '<Image name="image" value="$image"/>'
EVIDENCE = '<TextArea name="clip_evidence" toName="image" editable="false"/>'


def control(*labels: str, name: str = "tags", more: str = 'choice="multiple"') -> str:
    """A Choices control."""
    inside = "".join(f'<Choice value="{label}"/>' for label in labels)
    return f'<Choices name="{name}" toName="image" {more}>{inside}</Choices>'


def view(*parts: str) -> str:
    """A labeling config with one image."""
    return f"<View>{IMAGE}{''.join(parts)}</View>"


PLAIN = view(control(*DEMO_LABELS))
EVIDENT = view(control(*DEMO_LABELS), EVIDENCE)
CHANGED = view(control("umbrella", *reversed(DEMO_LABELS[2:])), EVIDENCE)
SINGLE = view(control(*DEMO_LABELS[:6], more='choice="single"'))
TAXONOMY = (
    '<Taxonomy name="kind" toName="image"><Choice value="animal"><Choice value="cat"/></Choice>'
    '<Choice value="thing" model_skip="true"><Choice value="coffee"/>'
    '<Choice value="rocket" alias="R-1"/></Choice></Taxonomy>'
)
TWO = view(control(*DEMO_LABELS[:5]), TAXONOMY, EVIDENCE)
OPTIONS = view('<Choices name="tags" toName="image" choice="multiple" value="$options"/>', EVIDENCE)
THRESHOLDS = view(
    '<Choices name="tags" toName="image" choice="multiple" model_score_threshold="0.3">'
    '<Choice value="cat" model_score_threshold="0"/><Choice value="coffee"/>'
    '<Choice value="rocket" model_score_threshold="1"/><Choice value="犬"/>'
    '<Choice value="花" model_prompt="a photo of a flower|a flower"/>'
    '<Choice value="temple" alias="T-1" model_skip="true"/></Choices>',
    EVIDENCE,
)
FOLLOW_UP = (
    '<View visibleWhen="choice-selected" whenTagName="tags" whenChoiceValue="a,coffee">'
    + control("b", "c", name="more")
    + "</View>"
)
FOLLOWED_UP = view(control(*DEMO_LABELS[:5]), FOLLOW_UP, EVIDENCE)
TRICKY = {
    "taxonomy": view(TAXONOMY),
    "two": TWO,
    "options": OPTIONS,
    "options taxonomy": view('<Taxonomy name="kind" toName="image" value="$a.options"/>'),
    "thresholds": THRESHOLDS,
    "bad threshold": THRESHOLDS.replace('"0.3"', '"1.5"'),
    "threshold is no number": THRESHOLDS.replace('"0.3"', '"high"'),
    "bad threshold of a choice": THRESHOLDS.replace('threshold="1"', 'threshold="-1"'),
    "empty threshold": THRESHOLDS.replace('"0.3"', '" "'),
    "alias": view('<Choices name="a" toName="image"><Choice value="x" alias="y"/></Choices>'),
    "skipped": view(control("a", more='model_skip="1"'), control("b", more='model_skip="no"')),
    "per region": view(control("a", more='perRegion="true"')),
    "nested allowed": view(control("a", more='allowNested="true" choice="multiple"')),
    "nested": view(
        '<Choices name="n" toName="image" choice="multiple"><Choice value="a">'
        '<Choice value="b"/><Choice value="a"/></Choice><View><Choice value="c"/></View></Choices>'
    ),
    "no name": view('<Choices toName="image"><Choice value="a"/></Choices>'),
    "another target": view('<Choices name="x" toName="text"><Choice value="a"/></Choices>'),
    "two targets": view('<Choices name="x" toName="text, image"><Choice value="a"/></Choices>'),
    "fixed image": '<View><Image name="image" value="/x.jpg"/>' + control("a") + "</View>",
    "nested field": '<View><Image name="image" value="$a.b"/>' + control("a") + "</View>",
    "api url": view('<Taxonomy name="t" toName="image" apiUrl="http://x.test/y"/>'),
    "empty": view('<Choices name="x" toName="image"/>'),
    "nothing": "<View/>",
    "no text": "",
    "not xml": "<View>",
    "attack": '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>',
    "single": SINGLE,
    "evidence": EVIDENT,
    "evidence with two targets": view(
        control("a"), '<TextArea name="clip_evidence" toName=" image, text"/>'
    ),
    "deep": "<View>" * 3000 + "</View>" * 3000,
    "same twice": view(control("a", "b", "a", "")),
    "for a region": view(control("a", more='visibleWhen="region-selected"')),
    "for no region": view(control("a", more='visibleWhen="no-region-selected"')),
    "follow-up": FOLLOWED_UP,
}
OPTION_DATA: list[dict[str, Any]] = [
    {"options": ["cat", "coffee", "cat", " ", 3, True, None, ["x"]]},
    {"options": [{"value": "a", "alias": "b", "children": [{"value": "c"}, "d"]}, {"alias": "x"}]},
    {"options": "cat"},
    {},
    {"a": {"options": ["cat", "\ud800"]}},
    {"a.options": ["dotted"]},
]


def address(number: int) -> str:
    """What stands in the data of the task with this number."""
    return f"http://photos.test/{number:04d}.jpg"


def task(number: int, **data: Any) -> dict[str, Any]:
    """A task whose image is in the store."""
    return {"id": number, "data": {"image": address(number), **data}}


def tasks(*numbers: int, **data: Any) -> list[dict[str, Any]]:
    """Several of them."""
    return [task(number, **data) for number in numbers]


ALL = range(1, PHOTOS + 1)
UPLOAD, CLOUD = "/data/upload/1/0001.jpg", "s3://bucket/0002.jpg"
"""Other addresses of the first two photos."""
ODD_TASKS: list[Any] = [
    {"id": 50, "data": {}},
    {"id": 51, "data": {"image": "  "}},
    {"id": 52, "data": {"image": 7}},
    {"id": 53},
    {"data": {"image": address(3)}},
    {"id": 2**70, "data": {"image": address(3)}},
    {"id": "x", "data": None},
    {"id": 54, "data": {"image": "http://elsewhere.test/gone.jpg"}},
    {"id": 55, "data": {"image": "ftp://elsewhere.test/gone.jpg"}},
    {"id": 56, "data": {"image": UPLOAD}},
    {"id": 57, "data": {"image": CLOUD}},
    {"id": 58, "data": {"image": "data:image/png;base64,AAAA"}},
]
OPTION_TASKS = [
    task(1, options=[{"value": "cat"}, {"value": "coffee"}, {"value": "rocket"}]),
    task(2, options=[{"value": "cat", "alias": "C"}, {"value": "temple"}]),
    task(3, options=[]),
    task(4, options="cat"),
    task(5),
    task(6, options=[{"value": "cat"}, {"value": "coffee"}, {"value": "rocket"}]),
]
