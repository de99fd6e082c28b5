"""How commands and groups of commands show their help."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose flags for configuration keys show the help of the key.

    That is read only when it is shown, because it takes time to import.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from tinygpt.config.fields import FIELDS, requirement

        params: list[Any] = self.params
        for flag in params:
            if flag.help in FIELDS:
                meaning = FIELDS[flag.help].description or ""
                flag.help = f"{meaning[:1].upper()}{meaning[1:]} ({requirement(flag.help)})."
        super().format_help(ctx, formatter)


class Commands(TyperGroup):
    """A group of commands that shows its help when it is called alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])
