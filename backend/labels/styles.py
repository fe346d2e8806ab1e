"""What the CSS of a labeling config hides: ``<Style>`` tags and ``style`` attributes.

Follows what Label Studio 1.23.2 makes of them (measured in Chromium): only a ``<View>`` has the
classes and the id of the config. Of a ``style`` attribute it does not take over what is
``!important``, and no browser takes a rule with ``>``, ``<`` or ``&`` from it, because these reach
the page as ``&gt;`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

from tinycss2 import parse_blocks_contents, parse_stylesheet, serialize

from backend.labels.attributes import CONTROL_TAGS, Tag, attribute, tag_of

_IMPORTANT = re.compile(r"\s*!\s*important\Z", re.IGNORECASE)
_BROKEN = frozenset("<>&;")
"""What makes a selector invalid when it arrives, and with it the whole rule."""
_COMMA = re.compile(r",(?![^(\[]*[)\]])")
_NAME = r"-?[^\W\d][\w-]*|--[\w-]+"
_BRACKETS = r"\([^()]*(?:\([^()]*\)[^()]*)*\)"
_SIMPLE = re.compile(
    rf"(?P<part>::[\w-]+(?:{_BRACKETS})?|:(?:before|after|first-line|first-letter)\b)"
    rf"|(?P<name>[.#](?:{_NAME}))|(?P<type>\*|{_NAME}|:root\b)"
    rf"|(?P<odd>:[\w-]+(?:{_BRACKETS})?|\[[^\]]*\]|.)",
    re.DOTALL,
)
_ROOTS = frozenset({"html", "body", "div", "*", ":root"})
"""What is always around a labeling config."""
_PRINTED = frozenset({"print", "speech"})
_CONDITIONAL = frozenset({"supports", "layer", "container", "scope"})
_ZERO = re.compile(r"[+-]?(?:0+\.?0*|\.0+)(?:[a-z]*)", re.IGNORECASE)
_NOTHING = re.compile(r"[+-]?(?:0+\.?0*|\.0+)(?:[a-z]*|%)", re.IGNORECASE)
_CLIPPING = frozenset({"hidden", "auto", "scroll"})

Declarations = Mapping[str, str]
"""Property -> value, both in lower case."""


@dataclass(frozen=True)
class _Compound:
    """What a selector says of one element: ``div.a#b``."""

    tag: str = ""
    names: frozenset[str] = frozenset()
    is_odd: bool = False
    is_part: bool = False

    def matches(self, names: frozenset[str] | None, known: frozenset[str]) -> bool | None:
        """Whether an element is meant; None if that cannot be told.

        Args:
            names: the element's classes and id; None for one of Label Studio's own.
            known: classes and ids that the config has; Label Studio's own elements have others.
        """
        if self.is_part:
            return False
        if names is None:
            if self.names & known:
                return False
            return True if self.tag == "*" and not self.names and not self.is_odd else None
        if not self.names <= names or self.tag not in {"", "*", "div"}:
            return False
        return None if self.is_odd else True


@dataclass(frozen=True)
class _Selector:
    text: str
    compounds: tuple[_Compound, ...]
    has_siblings: bool

    @property
    def weight(self) -> tuple[int, int, int]:
        """The specificity."""
        names = [name for compound in self.compounds for name in compound.names]
        ids = sum(name.startswith("#") for name in names)
        tags = sum(compound.tag not in {"", "*"} for compound in self.compounds)
        return ids, len(names) - ids + sum(one.is_odd for one in self.compounds), tags


@dataclass(frozen=True)
class _Rule:
    at: str
    selectors: tuple[_Selector, ...]
    plain: Declarations
    important: Declarations
    is_certain: bool

    @property
    def is_hiding(self) -> bool:
        declared = {**self.plain, **self.important}
        return _vanishes(declared) or is_invisible(declared.get("visibility", ""))


@dataclass
class Styles:
    """The CSS of one config.

    Args:
        root: of the config.
        upwards: a tag and all those around it.
    """

    root: Element
    upwards: Callable[[Element], Iterable[Element]]
    _rules: list[_Rule] = field(init=False)
    _nameless: list[_Rule] = field(init=False)
    _known: frozenset[str] = field(init=False)
    _declared: dict[Element, Declarations] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        texts = [tag.text or "" for tag in self.root.iter() if tag_of(tag) is Tag.STYLE]
        sheets = [
            parse_stylesheet(text, skip_comments=True, skip_whitespace=True) for text in texts
        ]
        self._rules = [rule for sheet in sheets for rule in _rules_of(sheet)]
        self._nameless = [
            rule
            for rule in self._rules
            if any(not selector.compounds[-1].names for selector in rule.selectors)
        ]
        views = (tag for tag in self.root.iter() if tag_of(tag) is Tag.VIEW)
        self._known = frozenset[str]().union(*map(_names, views))

    def hides(self, element: Element) -> bool:
        """Whether nothing of an element is to be seen, whatever the tags around it are."""
        return _vanishes(self._of(element))

    def visibility(self, element: Element) -> str:
        """The ``visibility`` that an element gives itself and what is in it; empty: none."""
        value = self._of(element).get("visibility", "")
        return "" if value in {"inherit", "unset", "revert", "revert-layer"} else value

    @property
    def undecided(self) -> list[str]:
        """Selectors that hide something, but perhaps nothing that the config shows."""
        kinds = CONTROL_TAGS | {Tag.VIEW}
        tags = [tag for tag in self.root.iter() if tag_of(tag) in kinds]
        found = [
            rule.at + selector.text
            for rule in self._rules
            if rule.is_hiding
            for selector in rule.selectors
            if self._is_open(rule, selector, tags)
        ]
        return list(dict.fromkeys(found))

    def _is_open(self, rule: _Rule, selector: _Selector, tags: Iterable[Element]) -> bool:
        found = {self._matches(selector, tag) for tag in tags}
        return None in found or (True in found and not rule.is_certain)

    def _of(self, element: Element) -> Declarations:
        if element not in self._declared:
            self._declared[element] = self._cascaded(element)
        return self._declared[element]

    def _cascaded(self, element: Element) -> Declarations:
        matching = []
        # Only a rule without names at its end can mean one of Label Studio's own elements.
        rules = self._rules if tag_of(element) is Tag.VIEW else self._nameless
        for rule in rules:
            weights = [one.weight for one in rule.selectors if self._matches(one, element) is True]
            if weights and rule.is_certain:
                matching.append((max(weights), rule))
        # Of equal weights the last one counts: the order stays.
        matching.sort(key=lambda item: item[0])
        declared: dict[str, str] = {}
        for _, rule in matching:
            declared |= rule.plain
        declared |= _inline(element)
        for _, rule in matching:
            declared |= rule.important
        return declared

    def _matches(self, selector: _Selector, element: Element) -> bool | None:
        *above, subject = selector.compounds
        found = subject.matches(_own_names(element), self._known)
        if found is False:
            return False
        if selector.has_siblings:
            return None
        return _both(found, self._is_within(above, element))

    def _is_within(self, above: list[_Compound], element: Element) -> bool | None:
        """Whether an element has tags around it for all of these, the last one innermost."""
        if all(one.tag in _ROOTS and not one.names and not one.is_odd for one in above):
            return True
        *rest, last = above
        found = _both(last.matches(None, self._known), self._is_within(rest, element))
        best: bool | None = False if found is False else None
        for outer in self.upwards(element):
            if outer is element:
                continue
            found = last.matches(_own_names(outer), self._known)
            if found is not False:
                found = _both(found, self._is_within(rest, outer))
            if found is True:
                return True
            best = None if found is None else best
        return best


def is_invisible(visibility: str) -> bool:
    """Whether this value of ``visibility`` hides an element."""
    return visibility in {"hidden", "collapse"}


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _own_names(element: Element) -> frozenset[str] | None:
    return _names(element) if tag_of(element) is Tag.VIEW else None


def _names(view: Element) -> frozenset[str]:
    names = {f".{name}" for name in attribute(view, "className").split()}
    if identifier := attribute(view, "idAttr"):
        names.add(f"#{identifier}")
    return frozenset(names)


def _vanishes(declared: Declarations) -> bool:
    display = declared.get("display", "")
    if display == "none":
        return True
    opacity = declared.get("opacity", "")
    return bool(_NOTHING.fullmatch(opacity)) or _is_clipped(declared, display)


def _is_clipped(declared: Declarations, display: str) -> bool:
    """Whether an element has no size and hides what does not fit into it."""
    overflow = declared.get("overflow", "").split()
    overflow += [declared.get("overflow-x", ""), declared.get("overflow-y", "")]
    if display in {"inline", "contents"} or not (
        _CLIPPING & set(overflow) or declared.get("overflow") == "clip"
    ):
        return False
    if any(
        name.startswith("flex")
        or (name.startswith("padding") and not all(map(_NOTHING.fullmatch, value.split())))
        for name, value in declared.items()
    ):
        return False
    return any(
        not declared.get(f"min-{side}", "").strip("0px")
        and any(zero.fullmatch(declared.get(name, "")) for name in (side, f"max-{side}"))
        for side, zero in (("height", _ZERO), ("width", _NOTHING))
    )


def _inline(element: Element) -> dict[str, str]:
    """The ``style`` attribute, where Label Studio takes it over."""
    if tag_of(element) not in {Tag.VIEW, Tag.CHOICE}:
        return {}
    declared = {}
    for part in attribute(element, "style").split(";"):
        name, _, value = part.partition(":")
        if value.strip() and not _IMPORTANT.search(value):
            declared[name.replace(" ", "")] = value.strip().lower()
    return declared


def _rules_of(
    nodes: Iterable[Any], outer: tuple[str, ...] = (), at: str = "", is_certain: bool = True
) -> Iterator[_Rule]:
    """The rules of a style sheet, or of a block in it.

    Args:
        nodes: of tinycss2, as the sheet or the block has them.
        outer: selectors of the rule around it; empty: none.
        at: the conditions around it, for people.
        is_certain: whether these are met.
    """
    nodes = list(nodes)
    if outer:
        declared = [node for node in nodes if node.type == "declaration"]
        yield _rule(outer, declared, at, is_certain)
    for node in nodes:
        if node.type == "at-rule" and node.content is not None:
            prelude = serialize(node.prelude)
            kind = node.lower_at_keyword
            is_met: bool | None = None if kind in _CONDITIONAL else False
            if kind == "media":
                is_met = _is_met(prelude)
            if is_met is not False:
                within = at if is_met else f"{at}@{node.at_keyword}{prelude.rstrip()} "
                certain = is_certain and is_met is True
                yield from _rules_of(_content(node), outer, within, certain)
        elif node.type == "qualified-rule":
            head = serialize(node.prelude)
            if _BROKEN & set(head):
                continue
            own = [one.strip() for one in _COMMA.split(head)]
            selectors = tuple(f"{before} {one}" for before in outer for one in own)
            yield from _rules_of(_content(node), selectors or tuple(own), at, is_certain)


def _content(node: Any) -> list[Any]:
    nodes: list[Any] = parse_blocks_contents(node.content, skip_comments=True, skip_whitespace=True)
    return nodes


def _is_met(media: str) -> bool | None:
    """Whether ``@media`` is about a screen; None if that depends on it."""
    answers = [_is_query_met(query.strip().lower()) for query in media.split(",")]
    if True in answers:
        return True
    return None if None in answers else False


def _is_query_met(query: str) -> bool | None:
    words = query.removeprefix("only ").split()
    if words in ([], ["all"], ["screen"]):
        return True
    if words[0] in _PRINTED or words in (["not", "all"], ["not", "screen"]):
        return False
    return True if words[0] == "not" and words[1:] in (["print"], ["speech"]) else None


def _rule(selectors: tuple[str, ...], declared: Iterable[Any], at: str, is_certain: bool) -> _Rule:
    plain: dict[str, str] = {}
    important: dict[str, str] = {}
    for node in declared:
        value = serialize(node.value).strip().lower()
        (important if node.important else plain)[node.lower_name] = value
    return _Rule(at, tuple(map(_selector, selectors)), plain, important, is_certain)


def _selector(text: str) -> _Selector:
    # Spaces in brackets part no elements.
    words = re.split(r"\s+(?![^(\[]*[)\]])", re.sub(r"\s*([+~])\s*", r" \1 ", text).strip())
    compounds = tuple(_compound(word) for word in words if word not in {"+", "~"})
    return _Selector(text, compounds, any(word in {"+", "~"} for word in words))


def _compound(text: str) -> _Compound:
    parts = [found.groupdict() for found in _SIMPLE.finditer(text)]
    return _Compound(
        next((part["type"].lower() for part in parts if part["type"]), ""),
        frozenset(part["name"] for part in parts if part["name"]),
        # An attribute, a state, or what we do not know.
        is_odd=any(part["odd"] for part in parts),
        is_part=any(part["part"] for part in parts),
    )
