"""``effattack completion``: a script that completes commands, options and victims in a shell."""

from __future__ import annotations

import argparse

from rich.console import Console

from effattack.registry import registered

HELP = "a script that completes commands and options in your shell"
EXAMPLES = """examples:
  eval "$(effattack completion bash)"      # in ~/.bashrc
  eval "$(effattack completion zsh)"       # in ~/.zshrc
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """_effattack() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words
    case "$before" in
{values}
        *) case "${{COMP_WORDS[1]}}" in
{options}
            *) words="{commands}" ;;
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _effattack effattack
"""


def arguments(completion: argparse.ArgumentParser) -> None:
    completion.add_argument("shell", choices=["bash", "zsh"])


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.cli import parsers

    print((_ZSH if options.shell == "zsh" else "") + script(parsers()), end="")
    return 0


def script(commands: dict[str, argparse.ArgumentParser]) -> str:
    """Completion for bash, from the parsers of all commands."""
    values = {"--victim": sorted(registered())}
    words = {}
    for name, parser in commands.items():
        words[name] = [option for a in parser._actions for option in a.option_strings]
        for action in parser._actions:
            if action.choices and action.option_strings:
                values[action.option_strings[-1]] = list(map(str, action.choices))
            elif action.choices:
                words[name] += map(str, action.choices)
    return _SCRIPT.format(
        values=_cases(values, indent=8), options=_cases(words, indent=12), commands=" ".join(words)
    )


def _cases(words: dict[str, list[str]], indent: int) -> str:
    return "\n".join(f'{" " * indent}{k}) words="{" ".join(v)}" ;;' for k, v in words.items())
