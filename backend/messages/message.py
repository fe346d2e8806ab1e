"""A text for people that can still be said in another language.

The code holds the English text with named placeholders. A `Message` is that text, filled in, so
that logs read English, and it keeps what it was made of: where a person reads it,
`backend.messages.catalogue.localized` says it in the language of the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class Message(str):
    """An English text, made of a template and its values.

    A text that is put together from it by ``+`` or in an f-string is English and stays so: give it
    to the template of another message instead.

    Args:
        template: the English text, with placeholders as ``str.format`` takes them.
        values: placeholder -> value; one that is a `Message` itself is translated, too.

    Attributes:
        key: the template under which catalogues have the text; of two forms the plural.
        values: placeholder -> value.
    """

    key: str
    values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: object) -> Self:
        """Fill the template in."""
        return cls.restored(template.format(**values), template, values)

    @classmethod
    def of_count(cls, count: int, singular: str, plural: str, /, **values: object) -> Self:
        """A text that differs between one and several; ``{count}`` is a placeholder of both.

        Catalogues have it under the plural: other languages may not tell the two apart.

        Args:
            count: how many.
            singular: the template for one.
            plural: the template for none and for several.
            values: what else is in the templates.
        """
        values = {"count": count, **values}
        return cls.restored((singular if count == 1 else plural).format(**values), plural, values)

    @classmethod
    def restored(cls, text: str, key: str, values: Mapping[str, object]) -> Self:
        """A message from its English text and what that was made of."""
        made = super().__new__(cls, text)
        made.key = key
        # What is no number is shown as a text; so it stays what it was, and can be packed.
        made.values = {
            name: value if isinstance(value, Message | int | float) else str(value)
            for name, value in values.items()
        }
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies, which cannot be made of the text alone."""
        return type(self).restored, (str(self), self.key, self.values)


def packed(text: str) -> dict[str, Any] | str:
    """A text as JSON, for another process of ours; `unpacked` reads it."""
    if not isinstance(text, Message):
        return text
    values = {
        name: packed(value) if isinstance(value, str) else value
        for name, value in text.values.items()
    }
    return {"text": str(text), "key": text.key, "values": values}


def unpacked(content: Mapping[str, Any] | str) -> str:
    """The text that was `packed`."""
    if isinstance(content, str):
        return content
    values = {
        name: value if isinstance(value, int | float) else unpacked(value)
        for name, value in content["values"].items()
    }
    return Message.restored(content["text"], content["key"], values)


def in_sequence(*sentences: str) -> Message:
    """Sentences one after the other, without those that are empty."""
    kept = [text for text in sentences if text]
    made = Message("{sentence}", sentence=kept[0] if kept else "")
    for text in kept[1:]:
        made = Message("{before} {sentence}", before=made, sentence=text)
    return made
