"""How ``ls-clip --help`` looks: plain text, at once, with whole sentences.

Typer's own page, with frames, imports a Markdown parser, a highlighter and pydantic before it
prints a line.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

CONTEXT_SETTINGS = {"max_content_width": 100}
"""For all commands: how wide a page may be, in characters."""


class CommandGroup(TyperGroup):
    """A command with commands of its own, whose help costs little and is not cut off."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option ``--help``."""
        option = super().get_help_option(ctx)
        if option is not None and option.default is None:
            # Anything but a bool is validated by pydantic, whose import takes longer than the page.
            option.default = False
        return option

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the whole first paragraph of its help."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in commands
            if command is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
