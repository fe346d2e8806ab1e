"""Any labeling config is read, or refused with an error of ours."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from backend.errors import LabelConfigError
from backend.labels.config import parse_config

TAGS = ["View", "Choices", "Choice", "Taxonomy", "Image", "TextArea", "Header", "Label"]
ATTRIBUTES = [
    *("name", "toName", "value", "alias", "choice", "allowNested", "perRegion", "hint"),
    *("model_skip", "model_prompt", "model_score_threshold", "apiUrl"),
]
VALUES = [
    "image",
    "$image",
    "t",
    "t,image",
    "multiple",
    "true",
    "0.5",
    "$a.b",
    "",
    "|",
    "日本",
    "<&",
]


def quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def element(tag: str, attributes: dict[str, str], children: list[str]) -> str:
    written = "".join(f' {name}="{quoted(value)}"' for name, value in attributes.items())
    return f"<{tag}{written}>{''.join(children)}</{tag}>"


elements = st.recursive(
    st.just("<Choice value='x'/>"),
    lambda children: st.builds(
        element,
        st.sampled_from(TAGS),
        st.dictionaries(st.sampled_from(ATTRIBUTES), st.sampled_from(VALUES), max_size=6),
        st.lists(children, max_size=4),
    ),
    max_leaves=12,
)


@given(elements)
def test_any_config_is_read_or_refused_in_our_own_words(body: str):
    xml = f'<View><Image name="image" value="$image"/>{body}</View>'
    try:
        config = parse_config(xml)
    except LabelConfigError:
        return
    for control in config.controls:
        own = control.for_task({"a": {"b": ["x", {"value": "y", "children": ["z"]}]}})
        assert len({label.path for label in own.labels}) == len(own.labels)
        assert all(label.text and all(label.path) for label in own.labels)
        assert set(own.result_value(list(own.labels))) == {control.kind}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_our_own_words(text: str):
    with contextlib.suppress(LabelConfigError):
        parse_config(text)
