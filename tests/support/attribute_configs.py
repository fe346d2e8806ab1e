"""Labeling configs that use every attribute that we know of, with what is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IMAGE = '<Image name="image" value="$image"/>'


@dataclass(frozen=True)
class Case:
    """One config and one task.

    Attributes:
        config: the body of the root ``<View>``.
        expected: control name -> what the prediction selects when every label is over the
            threshold; controls that are not named are left out.
        reasons: control name -> part of the reason why it is left out, or what is said of it.
        data: of the task beside ``image``; ``{first}`` and ``{second}`` are names of photos,
            ``{server}`` is the address of a web server.
        preselected: control name -> what is selected as the config preselects it.
    """

    config: str
    expected: Mapping[str, Sequence[Any]]
    reasons: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    preselected: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def xml(self) -> str:
        """The whole config."""
        return f"<View>{self.config}</View>"

    @property
    def selected(self) -> dict[str, Sequence[Any]]:
        """Control name -> what stands in the prediction."""
        return {**self.expected, **self.preselected}


def _choices(name: str, attributes: str = "", inner: str = "", to: str = "image") -> str:
    inner = inner or f'<Choice value="{name} a"/><Choice value="{name} b"/>'
    return f'<Choices name="{name}" toName="{to}" choice="multiple" {attributes}>{inner}</Choices>'


def _taxonomy(name: str, attributes: str = "", inner: str = "") -> str:
    inner = inner or (
        f'<Choice value="{name} up"><Choice value="{name} low"/></Choice>'
        f'<Choice value="{name} leaf"/>'
    )
    return f'<Taxonomy name="{name}" toName="image" {attributes}>{inner}</Taxonomy>'


def _both(name: str) -> list[str]:
    return [f"{name} a", f"{name} b"]


def _tree(name: str) -> list[list[str]]:
    return [[f"{name} up"], [f"{name} up", f"{name} low"], [f"{name} leaf"]]


def _styled(name: str, outer: str, inner: str = "") -> str:
    return f"<View {outer}><View {inner}>{_choices(name)}</View></View>"


NEAR = 'className="near"'
STYLES = """<Style>
/* .far { display: none } */
.far .near, .both.sides, div#spot { display: none }
.group { .nested { visibility: hidden } }
@media print { .paper { display: none } }
@media screen { .monitor { display: none } }
.first { display: none } .last { display: block }
.firm { display: none !important }
.direct > .child { display: none }
.hush { visibility: hidden } .loud { visibility: visible }
.tip:hover { display: none }
</Style>"""
RECTANGLES = '<RectangleLabels name="rect" toName="image"><Label value="Car"/></RectangleLabels>'

CASES: dict[str, Case] = {
    "looks of choices": Case(
        IMAGE
        + _choices("inline", 'layout="inline" showInline="true" requiredMessage="please"')
        + _choices(
            "dropdown",
            'layout="select"',
            '<Choice value="dropdown a" readonly="true"/><Choice value="dropdown b" '
            'visible="false"/>',
        )
        + _choices("needed", 'required="true"')
        + _choices(
            "foreign",
            'maxUsages="1" leafsOnly="true" apiUrl="http://127.0.0.1:1/" visible="false" '
            'readonly="true" displayMode="tag"',
        )
        + '<Choices name="radio" toName="image" choice="single-radio"><Choice value="r"/></Choices>'
        + '<Choices name="single" toName="image"><Choice value="s"/></Choices>'
        + _choices(
            "look",
            "",
            '<Choice value="look a" hotkey="q" html="&lt;b&gt;look a&lt;/b&gt;" hint="why" '
            'color="red" style="color: red"/><Choice value="look b" alias="LB" '
            'visibleWhen="region-selected"/>',
        ),
        {
            "inline": _both("inline"),
            "dropdown": _both("dropdown"),
            "needed": _both("needed"),
            "foreign": _both("foreign"),
            "radio": ["r"],
            "single": ["s"],
            "look": ["look a", "LB"],
        },
    ),
    "choices that nobody can select": Case(
        IMAGE
        + _choices(
            "hidden",
            "",
            '<Choice value="shown"/><Choice value="unseen" visible="false"/>'
            '<Choice value="locked" readonly="true"/>'
            '<Choice value="styled" style="display:none"/>'
            '<View visibleWhen="region-selected"><Choice value="regional"/></View>'
            '<View style="display: none"><Choice value="wrapped"/></View>',
        )
        + _choices("nested", "", '<Choice value="upper"><Choice value="lower"/></Choice>')
        + _choices(
            "within",
            "",
            '<Choice value="first"/><View visibleWhen="choice-selected" whenTagName="within" '
            'whenChoiceValue="first"><Choice value="then"/></View>'
            '<View visibleWhen="choice-unselected" whenTagName="within" '
            'whenChoiceValue="first"><Choice value="else"/></View>',
        ),
        {"hidden": ["shown"], "nested": ["upper"], "within": ["first", "then"]},
        {
            "hidden": "nobody can select unseen, locked, styled, regional, wrapped",
            "nested": "nobody can select lower",
        },
    ),
    "controls that are not on the screen": Case(
        "<Style>.gone { display: none } #away { color: red; display: none !important }</Style>"
        + IMAGE
        + RECTANGLES
        + _choices("plain", 'whenLabelValue="Car" whenRole="user"')
        + _choices("regions", 'perRegion="true" displayMode="region-list"')
        + _choices("items", 'perItem="true"')
        + _choices("paths", 'allowNested="true"')
        + _choices("region", 'visibleWhen="region-selected" whenTagName="rect"')
        + _choices("calm", 'visibleWhen="no-region-selected"')
        + _choices(
            "follow",
            'visibleWhen="choice-selected" whenTagName="plain" whenChoiceValue="plain b"',
        )
        + _choices("never", 'visibleWhen="choice-unselected" whenTagName="plain"')
        + f'<View visibleWhen="region-selected" whenLabelValue="Car">{_choices("inner")}</View>'
        + f'<View display="inline" whenRole="user">{_choices("outer")}</View>'
        + f'<View style="visibility: hidden">{_choices("styled")}</View>'
        + f'<View className="wide gone">{_choices("classed")}</View>'
        + f'<View idAttr="away">{_choices("named")}</View>'
        + f'<Collapse accordion="true"><Panel value="p">{_choices("closed")}</Panel></Collapse>'
        + '<Collapse accordion="false" bordered="true" size="5" style="x" value="v" open="true">'
        + f'<Panel value="o">{_choices("opened")}</Panel>'
        + f'<Panel value="shut" open="false">{_choices("shut")}</Panel></Collapse>',
        {name: _both(name) for name in ("plain", "calm", "follow", "outer", "opened")},
        {
            "regions": "labels regions",
            "items": "perItem",
            "paths": "use a <Taxonomy>",
            "region": "selected region only",
            "inner": "selected region only",
            "styled": "a style hides it",
            "classed": "a style hides it",
            "named": "a style hides it",
            "closed": "closed panel",
            "shut": "closed panel",
        },
    ),
    "styles": Case(
        STYLES
        + IMAGE
        + _styled("far", 'className="far"')
        + _styled("near", 'className="far"', 'className="near"')
        + f'<View className="far"><Collapse><Panel value="p" open="true">{_styled("deep", NEAR)}'
        + "</Panel></Collapse></View>"
        + _styled("one", 'className="both"')
        + _styled("two", 'className="sides both"')
        + _styled("spot", 'idAttr="spot"')
        + _styled("nested", 'className="group"', 'className="nested"')
        + _styled("paper", 'className="paper"')
        + _styled("screen", 'className="monitor"')
        + _styled("later", 'className="first last"')
        + _styled("firm", 'className="firm" style="display: block"')
        + _styled("child", 'className="direct"', 'className="child"')
        + _styled("hush", 'className="hush"')
        + _styled("loud", 'className="hush"', 'className="loud"')
        + _styled("tip", 'className="tip"')
        + _styled("faint", 'style="opacity:0"', 'style="opacity: 1"')
        + _styled("flat", 'style="height:0px;overflow:hidden"')
        + _styled("low", 'style="max-height: 0; overflow-y: auto"')
        + _styled("thin", 'style="width: 0; overflow: hidden"')
        + _styled("open", 'style="height: 0"')
        + _styled("padded", 'style="height: 0; padding: 40px; overflow: hidden"')
        + _styled("firmer", 'style="display: none !important"')
        + _styled("again", 'style="display: none; display: block"')
        + _choices(
            "boxes",
            "",
            '<Choice value="boxes a"/><Choice value="boxes b" style="opacity: 0"/>'
            '<View className="far"><View className="near"><Choice value="boxes c"/></View></View>',
        ),
        {
            **{
                name: [f"{name} a", f"{name} b"]
                for name in ("far", "one", "paper", "later", "child", "loud", "tip", "open")
            },
            **{name: [f"{name} a", f"{name} b"] for name in ("padded", "firmer", "again")},
            "boxes": ["boxes a"],
        },
        {
            **dict.fromkeys(
                ("near", "deep", "two", "spot", "nested", "screen", "firm", "hush"),
                "a style hides it",
            ),
            **dict.fromkeys(("faint", "flat", "low", "thin"), "a style hides it"),
            "boxes": "nobody can select boxes b, boxes c",
        },
    ),
    "preselected choices": Case(
        IMAGE
        + _choices("taken", "", '<Choice value="yes" selected="true"/><Choice value="no"/>')
        + '<Choices name="aside" toName="image" model_skip="true">'
        '<Choice value="good" selected="true"/><Choice value="bad"/></Choices>',
        {"taken": ["yes", "no"]},
        {"aside": "model_skip"},
        preselected={"aside": ["good"]},
    ),
    "taxonomies": Case(
        IMAGE
        + RECTANGLES
        + _taxonomy("leaves", 'leafsOnly="true"')
        + _taxonomy("none", 'maxUsages="0"')
        + _taxonomy("free", 'maxUsages="many" required="true" requiredMessage="please"')
        + _taxonomy("old", 'legacy="true" placeholder="which?"')
        + _taxonomy(
            "wide",
            'showFullPath="true" pathSeparator="-" minWidth="100px" maxWidth="500px" '
            'dropdownWidth="300"',
        )
        + _taxonomy(
            "twice", "", '<Choice value="t"/><Choice value="t"><Choice value="u"/></Choice>'
        )
        + _taxonomy("ofregions", 'perRegion="true" displayMode="tag"')
        + _taxonomy("ofitems", 'perItem="true"')
        + _taxonomy("marks", 'labeling="true"')
        + _taxonomy("remote", 'apiUrl="$tree"', " ")
        + _taxonomy("told", 'visibleWhen="region-selected" whenRole="user" whenLabelValue="Car"')
        + _taxonomy(
            "lost", 'visibleWhen="choice-selected" whenTagName="free" whenChoiceValue="free low"'
        )
        + '<View visibleWhen="choice-selected" whenTagName="free" whenChoiceValue="free low">'
        + _taxonomy("asked", 'visibleWhen="choice-selected" whenTagName="old"')
        + "</View>",
        {
            "leaves": [["leaves up", "leaves low"], ["leaves leaf"]],
            "free": _tree("free"),
            "old": _tree("old"),
            "wide": _tree("wide"),
            "twice": [["t"]],
            "asked": _tree("asked"),
        },
        {
            "ofregions": "labels regions",
            "ofitems": "perItem",
            "marks": "labels regions",
            "remote": "come from a URL",
            "told": "selected region only",
            "lost": "does not submit its answers",
        },
        {"tree": "{server}/tree.json"},
    ),
    "looks of the image, and names in other cases": Case(
        '<image name="image" value="$image" smoothing="true" zoom="true" negativeZoom="true" '
        'grid="true" zoomControl="true" brightnessControl="true" contrastControl="true" '
        'rotateControl="true" crosshair="true" showLabels="true" selectionControl="true" '
        'lazyOff="true" width="90%" height="300px" maxWidth="700px" maxHeight="400px" zoomBy="1.2" '
        'gridSize="20" gridColor="#ff0000" horizontalAlignment="center" '
        'verticalAlignment="bottom" defaultZoom="original" crossOrigin="anonymous"/>'
        '<CHOICES name="tags" toName="image" CHOICE="multiple"><choice value="small"/>'
        '<CHOICE value="large"/></CHOICES>',
        {"tags": ["small", "large"]},
    ),
    "several images": Case(
        '<Image name="list" valueList="$images"/><Image name="path" value="$pages[0].url"/>'
        '<Image name="text" value="/data/local-files/?d=images/$file"/>'
        + _choices("all", to="list")
        + _choices("one", to="path")
        + _choices("prefixed", to="text")
        + _choices("two", to="path,text")
        + _choices("each", 'perItem="true"', to="list"),
        {name: _both(name) for name in ("all", "one", "prefixed", "two")},
        {"each": "perItem"},
        {
            "images": [
                "/data/local-files/?d=images/{first}",
                "/data/local-files/?d=images/{second}",
            ],
            "pages": [{"url": "/data/local-files/?d=images/{first}"}],
            "file": "{second}",
        },
    ),
    "labels from the task": Case(
        IMAGE
        + _choices("mixed", 'value="$options"', '<Choice value="none of these"/>')
        + _choices("filled", "", '<Choice value="$name"/><Choice value="fixed"/>')
        + _choices(
            "repeated",
            "",
            '<Repeater on="$names" indexFlag="{{i}}" mode="list"><Choice value="$names[{{i}}]"/>'
            '</Repeater><Choice value="written"/>',
        )
        + _choices("apart", 'value="$options"', '<Choice value="cat" model_skip="true"/>')
        + '<Taxonomy name="tree" toName="image" value="$tree"/>'
        + _taxonomy("written", 'value="$tree"')
        + '<Repeater on="$names" indexFlag="{{n}}">'
        + _choices("of_{{n}}", "", '<Choice value="entry"/>')
        + "</Repeater>",
        {
            "mixed": ["none of these", "cat", "D"],
            "filled": ["from data", "fixed"],
            "repeated": ["written"],
            "apart": ["D"],
            "tree": [["animal"], ["animal", "cow"]],
            "written": _tree("written"),
        },
        {
            "of_{{n}}": "<Repeater>",
            "repeated": "nobody can select $names[{{i}}]",
            "written": 'value="$tree" is without effect',
        },
        {
            "options": [
                {"value": "cat"},
                {"value": "dog", "alias": "D"},
                {"value": "unseen", "visible": False},
            ],
            "name": "from data",
            "names": ["x"],
            "tree": [{"value": "animal", "children": [{"value": "cow"}]}],
        },
    ),
}

NOT_SHOWN = {
    "a flag that is spelled otherwise": (
        IMAGE + _choices("tags", 'required="True"'),
        'required="True" of <Choices> has to be "true" or "false"',
    ),
    "a value that is not on the list": (
        '<Image name="image" value="$image" defaultZoom="huge"/>' + _choices("tags"),
        'defaultZoom="huge" of <Image> has to be "auto" or "original" or "fit"',
    ),
    "a text that says true": (
        IMAGE + _choices("tags", "", '<Choice value="yes" alias="true"/>'),
        'alias="true" of <Choice> cannot be a text that says true',
    ),
}
"""Configs that Label Studio takes, but whose tasks it cannot show, with what is said of them."""
