"""Every attribute of the tags that we read, and what it means for predictions.

The one place that knows it: the parser looks here for what leaves a control out and for values that
Label Studio does not accept, and docs/labels.md shows it as a table. Names and values are those of
Label Studio 1.23.2 (https://labelstud.io/tags/choices, .../taxonomy, .../image, .../view), with
those that its editor reads without documenting them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from xml.etree.ElementTree import Element

from backend.messages.message import Message


class Tag(StrEnum):
    """Tags that decide what is predicted; Label Studio reads their names in any case."""

    CHOICES = "Choices"
    CHOICE = "Choice"
    TAXONOMY = "Taxonomy"
    IMAGE = "Image"
    VIEW = "View"
    REPEATER = "Repeater"
    COLLAPSE = "Collapse"
    PANEL = "Panel"
    STYLE = "Style"
    TEXT_AREA = "TextArea"


CONTROL_TAGS = frozenset({Tag.CHOICES, Tag.TAXONOMY})
"""Tags in which an annotator chooses labels."""


class Answer(StrEnum):
    """What we do with an attribute."""

    HONOURED = "honoured"
    LEFT_OUT = "left out"
    NO_EFFECT = "no effect"


FLAG = ("true", "false")


@dataclass(frozen=True)
class Attribute:
    """One attribute of one tag.

    Attributes:
        tag: the tag.
        name: as Label Studio documents it.
        answer: what we do with it.
        meaning: what that is, for a person; of one that leaves a control out, why.
        values: those that Label Studio accepts; empty: any text; None: it does not read it.
    """

    tag: Tag
    name: str
    answer: Answer
    meaning: str
    values: tuple[str, ...] | None = ()


def _honoured(tag: Tag, name: str, meaning: str, *values: str) -> Attribute:
    return Attribute(tag, name, Answer.HONOURED, meaning, values)


def _left_out(tag: Tag, name: str, meaning: Message, *values: str) -> Attribute:
    return Attribute(tag, name, Answer.LEFT_OUT, meaning, values)


def _no_effect(tag: Tag, names: str, meaning: str, *values: str) -> list[Attribute]:
    return [Attribute(tag, name, Answer.NO_EFFECT, meaning, values) for name in names.split()]


def _not_read(tag: Tag, names: str, meaning: str) -> list[Attribute]:
    return [Attribute(tag, name, Answer.NO_EFFECT, meaning, None) for name in names.split()]


REPEATED = Message("it is repeated for each entry of a list (<Repeater>)")
_LAYOUT = "only changes how it looks"
_WHEN = (
    "a control that is hidden when a task opens is not predicted; a follow-up question is ticked "
    "where the prediction itself selects the choices that show it"
)
_REGIONS = Message("it labels regions, not the image")
_ITEMS = Message("it labels the images of a list one by one (perItem), not the task")


def _visibility(tag: Tag) -> list[Attribute]:
    return [
        *(
            _honoured(tag, name, _WHEN)
            for name in ("visibleWhen", "whenTagName", "whenChoiceValue")
        ),
        *_no_effect(tag, "whenLabelValue", "only narrows down which region it is shown for"),
        *_no_effect(tag, "whenRole", "only about chats"),
    ]


def _control(tag: Tag, values: str) -> list[Attribute]:
    return [
        _honoured(tag, "name", "`from_name` of the prediction's results"),
        _honoured(tag, "toName", "the images that are looked at, one or several"),
        _honoured(
            tag,
            "required",
            "every image has a label of the control, so that few labels are each likelier; not if "
            "it is shown under a condition",
            *FLAG,
        ),
        *_no_effect(tag, "requiredMessage", "only a text"),
        *_visibility(tag),
        _left_out(tag, "perRegion", _REGIONS, *FLAG),
        *_no_effect(tag, "displayMode", "only about regions", "tag", "region-list"),
        _left_out(tag, "perItem", _ITEMS, *FLAG),
        _honoured(tag, "value", values),
    ]


ATTRIBUTES: tuple[Attribute, ...] = (
    *_control(
        Tag.CHOICES,
        "`$field`: this task's own labels, after those of the config; objects with `value`, "
        "`alias`, `selected`, `visible`, `readonly`",
    ),
    _honoured(
        Tag.CHOICES,
        "choice",
        "`multiple`: every label over the threshold is ticked; else only the most probable one",
        "single",
        "single-radio",
        "multiple",
    ),
    _left_out(
        Tag.CHOICES,
        "allowNested",
        Message(
            "Label Studio's import drops predictions of nested paths; use a <Taxonomy> instead"
        ),
        *FLAG,
    ),
    _honoured(
        Tag.CHOICES,
        "layout",
        "`select`: the list offers choices that boxes would hide or lock, too",
        "select",
        "inline",
        "vertical",
    ),
    *_no_effect(Tag.CHOICES, "showInline", _LAYOUT, *FLAG),
    *_not_read(
        Tag.CHOICES,
        "maxUsages leafsOnly apiUrl readonly",
        "Label Studio reads it on other tags only",
    ),
    *_no_effect(Tag.CHOICES, "visible", "Label Studio shows the control all the same", *FLAG),
    *_control(
        Tag.TAXONOMY,
        "`$field`: this task's own labels, only where the config has none for the tree; objects "
        "with `value`, `alias`, `children`, `selected`",
    ),
    _honoured(Tag.TAXONOMY, "leafsOnly", "only leaves are labels", *FLAG),
    _honoured(Tag.TAXONOMY, "maxUsages", "at most so many labels are ticked, the most probable"),
    _left_out(Tag.TAXONOMY, "apiUrl", Message("its labels come from a URL")),
    _left_out(Tag.TAXONOMY, "labeling", _REGIONS, *FLAG),
    *_no_effect(
        Tag.TAXONOMY,
        "legacy",
        "labels that annotators add of their own are not predicted",
        *FLAG,
    ),
    *_no_effect(Tag.TAXONOMY, "showFullPath", _LAYOUT, *FLAG),
    *_no_effect(Tag.TAXONOMY, "pathSeparator maxWidth minWidth dropdownWidth placeholder", _LAYOUT),
    _honoured(
        Tag.CHOICE,
        "value",
        "the label, which the model reads; `$field` in it is replaced by the task's data",
    ),
    _honoured(Tag.CHOICE, "alias", "what Label Studio stores, and so does the prediction"),
    _honoured(
        Tag.CHOICE,
        "selected",
        "Label Studio preselects nothing where there is a prediction: so it is selected where "
        "the prediction ticks nothing in its control, in controls left out, and in blind tasks",
        *FLAG,
    ),
    _honoured(Tag.CHOICE, "visible", '`"false"` hides a choice of <Choices>: never ticked', *FLAG),
    _honoured(
        Tag.CHOICE,
        "readonly",
        '`"true"`: nobody could untick it, so that it is never ticked (<Choices>)',
        *FLAG,
    ),
    _honoured(Tag.CHOICE, "style", "what hides a <View> hides a choice of <Choices>: never ticked"),
    *_no_effect(Tag.CHOICE, "hotkey html hint color", "for people; the model reads `value`"),
    *_not_read(
        Tag.CHOICE,
        "visibleWhen",
        "Label Studio does not read it here; put the choice into a <View>",
    ),
    _honoured(Tag.IMAGE, "name", "`to_name` of the prediction's results"),
    _honoured(
        Tag.IMAGE,
        "value",
        "`$image`, `$pages[0].url`, `$a.b`, or a text around it: `/data/local-files/?d=$file`",
    ),
    _honoured(
        Tag.IMAGE, "valueList", "several images: each label has its highest probability over them"
    ),
    *_no_effect(
        Tag.IMAGE,
        "smoothing zoom negativeZoom grid zoomControl brightnessControl contrastControl "
        "rotateControl crosshair showLabels selectionControl lazyOff",
        _LAYOUT,
        *FLAG,
    ),
    *_no_effect(Tag.IMAGE, "width height maxWidth maxHeight zoomBy gridSize gridColor", _LAYOUT),
    *_no_effect(Tag.IMAGE, "horizontalAlignment", _LAYOUT, "left", "center", "right"),
    *_no_effect(Tag.IMAGE, "verticalAlignment", _LAYOUT, "top", "center", "bottom"),
    *_no_effect(Tag.IMAGE, "defaultZoom", _LAYOUT, "auto", "original", "fit"),
    *_no_effect(
        Tag.IMAGE,
        "crossOrigin",
        "about the browser; the backend fetches images itself",
        "none",
        "anonymous",
        "use-credentials",
    ),
    *_visibility(Tag.VIEW),
    _honoured(
        Tag.VIEW,
        "style",
        "`display: none`, `visibility: hidden`, `opacity: 0`, or no height or width and `overflow: "
        "hidden`: what is in it is left out",
    ),
    _honoured(Tag.VIEW, "className", "left out where a <Style> hides the class"),
    _honoured(Tag.VIEW, "idAttr", "left out where a <Style> hides the id"),
    *_no_effect(Tag.VIEW, "display", _LAYOUT),
    _left_out(Tag.REPEATER, "on", REPEATED),
    *_not_read(Tag.REPEATER, "indexFlag mode", "what is repeated is left out"),
    _honoured(
        Tag.COLLAPSE,
        "open",
        "a control in a closed panel is left out: its suggestions would be submitted unseen",
        *FLAG,
    ),
    _honoured(Tag.COLLAPSE, "accordion", "only the first open panel is open", *FLAG),
    *_no_effect(Tag.COLLAPSE, "bordered", _LAYOUT, *FLAG),
    *_no_effect(Tag.COLLAPSE, "size style value", _LAYOUT),
    _honoured(Tag.PANEL, "open", "as for <Collapse>, of this panel", *FLAG),
    *_no_effect(Tag.PANEL, "value", "only a title"),
)

_BY_TAG = {
    tag.lower(): {
        attribute.name.lower(): attribute for attribute in ATTRIBUTES if attribute.tag is tag
    }
    for tag in Tag
}


def tag_of(element: Element) -> Tag | None:
    """Which of our tags it is; None: another one."""
    name = element.tag.lower() if isinstance(element.tag, str) else ""
    return next((tag for tag in Tag if tag.lower() == name), None)


def attribute(element: Element, name: str) -> str:
    """The value of an attribute whose name is written in any case; empty if there is none."""
    wanted = name.lower()
    return next((value for key, value in element.attrib.items() if key.lower() == wanted), "")


def is_on(element: Element, name: str) -> bool:
    """Whether a flag of Label Studio's is set: it takes exactly ``true`` and ``false``."""
    return attribute(element, name) == "true"


def is_true(text: str | None) -> bool:
    """Whether the value of an attribute of our own switches something on."""
    return (text or "").strip().lower() in {"true", "1", "yes"}


def reason_to_leave_out(control: Element) -> str:
    """Why the attributes of a control leave it out; empty if they do not."""
    for known in _BY_TAG.get(control.tag.lower(), {}).values():
        value = attribute(control, known.name)
        if known.answer is Answer.LEFT_OUT and (value == "true" if known.values else value):
            return known.meaning
    return ""


def not_accepted(element: Element) -> str:
    """What keeps Label Studio's editor from showing the whole config; empty if nothing does.

    Measured: it shows an error instead of the task, and submits an empty annotation, where an
    attribute has a value that it does not know, or is ``true`` or ``false`` but is to be a text.
    """
    for name, value in element.attrib.items():
        known = _BY_TAG.get(element.tag.lower(), {}).get(name.lower())
        if known is None or known.values is None or known.name == "value":
            continue
        if known.values and value not in known.values:
            allowed = Message('"{value}"', value=known.values[0])
            for other in known.values[1:]:
                allowed = Message('{before} or "{value}"', before=allowed, value=other)
            return Message(
                '{name}="{value}" of <{tag}> has to be {allowed}',
                name=name,
                value=value,
                tag=element.tag,
                allowed=allowed,
            )
        if not known.values and value in FLAG:
            return Message(
                '{name}="{value}" of <{tag}> cannot be a text that says {value}',
                name=name,
                value=value,
                tag=element.tag,
            )
    return ""
