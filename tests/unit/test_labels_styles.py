"""Which parts of a config styles hide, and of which rules that cannot be told."""

from __future__ import annotations

import pytest

from backend.labels.config import LabelConfig, parse_config
from tests.support.attribute_configs import IMAGE

CHOICES = '<Choices name="t" toName="image"><Choice value="a"/></Choices>'
OTHER = '<Choices name="other" toName="image"><Choice value="a"/></Choices>'


def config(style: str, *views: str) -> LabelConfig:
    """A control in views, the outermost first, and another one beside them."""
    opened = "".join(f"<View {view}>" for view in views)
    around = f"{opened}{CHOICES}{'</View>' * len(views)}"
    return parse_config(f"<View>{IMAGE}<Style>{style}</Style>{OTHER}{around}</View>")


def is_hidden(found: LabelConfig) -> bool:
    names = {control.name for control in found.controls}
    assert "other" in names
    return "t" not in names


OUTER, INNER, BOTH = 'className="outer"', 'className="inner"', 'className="outer inner"'


@pytest.mark.parametrize(
    ("style", "views", "hidden"),
    [
        (".outer .inner {display:none}", (OUTER, INNER), True),
        (".outer .inner {display:none}", (OUTER, "", INNER), True),
        (".outer .inner {display:none}", (INNER, OUTER), False),
        (".outer .inner {display:none}", (BOTH,), False),
        (".outer.inner {display:none}", (BOTH,), True),
        (".outer.inner {display:none}", (OUTER, INNER), False),
        ("#spot .inner {display:none}", ('idAttr="spot"', INNER), True),
        ("div#spot.inner {DISPLAY: NONE}", ('idAttr="spot" className="inner"',), True),
        ("body .outer div.inner {display:none}", (OUTER, INNER), True),
        (".outer * {display:none}", (OUTER, ""), True),
        (".outer * {display:none}", (OUTER,), True),
        (".inner::before, .inner , .inner:after {display:none}", (INNER,), True),
        # They reach the page as &gt; and &amp;, and no browser takes such a rule.
        (".outer > .inner {display:none}", (OUTER, INNER), False),
        (".x, .outer &gt; .y, .inner {display:none}", (OUTER, INNER), False),
        (".outer { &amp; .inner {display:none} }", (OUTER, INNER), False),
        (".x {color:red}; .inner {display:none}", (INNER,), False),
        (".outer { color: red; .inner::before, .inner {display:none} }", (OUTER, INNER), True),
        ("/* .inner {display:none} */", (INNER,), False),
        (".inner::before {display:none}", (INNER,), False),
        (".inner:after {display:none}", (INNER,), False),
        ('.x:after {content: "}"} .inner {display:none}', (INNER,), True),
        (".inner {display:none", (INNER,), True),
        ("@media print {.inner {display:none}}", (INNER,), False),
        ("@media screen, print {.inner {display:none}}", (INNER,), True),
        ("@media not print {.outer { .inner {display:none}}}", (OUTER, INNER), True),
        ("@keyframes inner {from {opacity:0}} .x {color:red}", (INNER,), False),
        ("@import url(x.css); .inner {display:none}", (INNER,), True),
        (".inner {display:none} .inner {display:block}", (INNER,), False),
        (".outer .inner {display:block} .inner {display:none}", (OUTER, INNER), False),
        (".inner {display:none !important} .inner {display:block}", (INNER,), True),
        (".inner {display:none}", (INNER + ' style="display:block"',), False),
        (".inner {display:none!important}", (INNER + ' style="display:block"',), True),
        (".inner {visibility:hidden}", (INNER, OUTER), True),
        (".inner {visibility:hidden} .outer {visibility:visible}", (INNER, OUTER), False),
        (".inner {visibility:hidden} .outer {visibility:inherit}", (INNER, OUTER), True),
        (".inner {opacity: 0.0} .outer {opacity: 1}", (INNER, OUTER), True),
        (".inner {opacity: 0.1}", (INNER,), False),
    ],
)
def test_a_rule_hides_what_it_means_on_the_page(style: str, views: tuple[str, ...], hidden: bool):
    found = config(style, *views)
    assert is_hidden(found) == hidden
    assert not any("<Style>" in note for note in found.skipped)


@pytest.mark.parametrize(
    ("style", "hidden"),
    [
        ("opacity:0", True),
        ("opacity:0%", True),
        ("visibility: hidden", True),
        ("visibility: collapse", True),
        ("display: NONE", True),
        ("display: none; display: block", False),
        # Label Studio hands the whole value on, which no browser takes.
        ("display: none !important", False),
        ("DISPLAY: none", False),
        ("height:0px;overflow:hidden", True),
        ("height:0;overflow-y:scroll", True),
        ("max-height:0.0em; overflow:auto", True),
        ("width:0%;overflow:clip", True),
        ("height:0%;overflow:hidden", False),
        ("height:0;overflow:visible", False),
        ("height:0", False),
        ("height:10px;overflow:hidden", False),
        ("height:0;min-height:30px;overflow:hidden", False),
        ("height:0;min-height:0px;overflow:hidden", True),
        ("height:0;padding:0 20px;overflow:hidden", False),
        ("height:0;padding:0;overflow:hidden", True),
        ("display:inline;height:0;overflow:hidden", False),
        ("color:red", False),
    ],
)
def test_a_style_attribute_hides_as_far_as_the_browser_does(style: str, hidden: bool):
    assert is_hidden(config("", f'style="{style}"')) == hidden


@pytest.mark.parametrize(
    ("style", "named"),
    [
        (".inner:hover {display:none}", ".inner:hover"),
        (".outer .inner[title='a b'] {opacity:0}", '.outer .inner[title="a b"]'),
        (".outer + .inner {display:none}", ".outer + .inner"),
        (".ant-checkbox {visibility:hidden}", ".ant-checkbox"),
        (".outer label {display:none}", ".outer label"),
        (".dark .inner {display:none}", ".dark .inner"),
        (".inner:not(.a, .b) {display:none}", ".inner:not(.a, .b)"),
        (".inner, .unknown {display:none}", " .unknown "),
        ("@media (max-width: 600px) {.inner {display:none}}", "@media (max-width: 600px) .inner"),
        ("@supports (display:grid) {.inner {display:none}}", ".inner"),
    ],
)
def test_a_rule_that_cannot_be_decided_leaves_nothing_out_and_is_named(style: str, named: str):
    found = config(style, OUTER, INNER)
    assert is_hidden(found) == style.startswith(".inner, ")
    note = found.skipped[-1]
    assert note.startswith("<Style>: whether ") and named in note


def test_of_many_rules_that_cannot_be_decided_the_first_are_named():
    (note,) = config(" ".join(f".own{place} {{opacity:0}}" for place in range(12))).skipped
    assert ".own9 / ... hides" in note and ".own10" not in note


@pytest.mark.parametrize(
    "style",
    [
        ".inner:hover {color:red}",
        ".ant-checkbox {margin:0}",
        ".outer.inner:hover {display:none}",
        "::-webkit-scrollbar {display:none}",
        "@media (max-width: 600px) {.outer.inner {display:none}}",
    ],
)
def test_rules_that_hide_nothing_here_are_not_mentioned(style: str):
    assert config(style, OUTER, INNER).skipped == ()
