"""What each attribute of the labeling config does, and that documents and tests know them all."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from backend.errors import LabelConfigError
from backend.labels.attributes import ATTRIBUTES, tag_of
from backend.labels.config import parse_config
from backend.labels.label import MAX_OPTIONS
from tests.support.attribute_configs import CASES, IMAGE, NOT_SHOWN
from tests.support.attribute_table import TABLE_PAGES, TablePage
from tests.support.pages import relative


@pytest.mark.parametrize("page", TABLE_PAGES, ids=lambda page: relative(page.path))
def test_the_table_of_attributes_in_the_docs_is_todays(page: TablePage):
    text = page.path.read_text()
    assert text == page.with_table(text), "python -m tests.support.attribute_table writes it"


def test_every_attribute_is_tried_on_the_real_label_studio():
    tried = set()
    for case in CASES.values():
        root: Element = fromstring(case.xml)
        for element in root.iter():
            tried |= {(tag_of(element), name.lower()) for name in element.attrib}
    assert [one for one in ATTRIBUTES if (one.tag, one.name.lower()) not in tried] == []


def test_no_attribute_is_named_twice():
    names = [(one.tag, one.name) for one in ATTRIBUTES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", CASES)
def test_controls_are_predicted_or_left_out_with_the_reason(kind: str):
    case = CASES[kind]
    config = parse_config(case.xml)
    named = {control.name for control in config.controls}
    remarks = ("nobody can select", "is without effect")
    noted = {name for name, why in case.reasons.items() if any(one in why for one in remarks)}
    assert named >= set(case.expected)
    assert not named & (set(case.reasons) - noted)
    for name, reason in case.reasons.items():
        assert any(f"'{name}'" in one and reason in one for one in config.skipped), name


@pytest.mark.parametrize("kind", NOT_SHOWN)
def test_what_label_studio_cannot_show_is_said_with_the_place(kind: str):
    body, message = NOT_SHOWN[kind]
    with pytest.raises(LabelConfigError) as raised:
        parse_config(f"<View>{body}</View>").require_controls()
    assert message in str(raised.value)


@pytest.mark.parametrize("field", ["$画像", "$my-image", "$my image", "$写真_1"])
def test_a_field_that_label_studio_does_not_find_is_named_with_the_letters_that_it_reads(
    field: str,
):
    body = IMAGE.replace("$image", field)
    config = parse_config(
        f'<View>{body}<Choices name="t" toName="image"><Choice value="a"/></Choices></View>'
    )
    assert config.controls == ()
    assert field in config.skipped[0] and "A to Z" in config.skipped[0]


@pytest.mark.parametrize(
    ("given", "limit"),
    [("1", 1), ("2.9", 2), ("0", 0), ("-3", 0), ("many", None), ("", None), ("inf", None)],
)
def test_max_usages_is_read_as_label_studio_reads_it(given: str, limit: int | None):
    (control,) = parse_config(
        f'<View>{IMAGE}<Taxonomy name="t" toName="image" maxUsages="{given}"><Choice value="a"/>'
        "</Taxonomy></View>"
    ).controls
    assert control.most_ticks == limit


def test_labels_of_the_config_come_before_those_of_the_task_and_are_not_counted_among_them():
    (control,) = parse_config(
        f'<View>{IMAGE}<Choices name="t" toName="image" value="$o"><Choice value="none"/></Choices>'
        "</View>"
    ).controls
    options = [{"value": f"label {place}"} for place in range(MAX_OPTIONS + 5)]
    labels = control.for_task({"o": options}).labels
    assert [label.text for label in labels[:2]] == ["none", "label 0"]
    assert len(labels) == MAX_OPTIONS + 1
    assert [label.text for label in control.for_task({}).labels] == ["none"]


def test_an_image_of_a_list_is_found_by_its_place_and_several_are_all_looked_at():
    def values(attributes: str, data: object) -> list[str]:
        (control,) = parse_config(
            f'<View><Image name="i" {attributes}/><Choices name="t" toName="i">'
            '<Choice value="a"/></Choices></View>'
        ).controls
        assert isinstance(data, dict)
        return control.image_values_of(data)

    urls = [{"url": "/1"}, {"url": "/2"}]
    assert values('value="$images[1].url"', {"images": urls}) == ["/2"]
    assert values('value="$images.1.url"', {"images": urls}) == ["/2"]
    assert values('value="$images[7].url"', {"images": urls}) == []
    assert values('valueList="$images"', {"images": ["/1", "/2", "/1", 3, ""]}) == ["/1", "/2"]
    assert values('value="/d?d=$dir/$file"', {"dir": "a", "file": 7}) == ["/d?d=a/7"]
    assert values('value="/d?d=$dir/$file"', {"dir": "a"}) == []
