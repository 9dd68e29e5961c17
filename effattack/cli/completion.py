"""``effattack completion``: a script that completes commands, options and victims in a shell."""

from __future__ import annotations

import argparse

from rich.console import Console

from effattack.registry import VICTIMS, entries

HELP = "a script that completes commands, options and victims in your shell"
EXAMPLES = """examples:
  eval "$(effattack completion bash)"      # in ~/.bashrc
  eval "$(effattack completion zsh)"       # in ~/.zshrc
"""
_WORDS = """_effattack_words() {{  # the command, the word before, the word that is typed
    case "$1" in
        "") echo "{commands}"; return ;;
    esac
    case "$2" in
{values}
    esac
    case "$1 $3" in
{words}
    esac
}}
"""
_SHELLS = {
    "bash": """_effattack() {
    local command="" current="${COMP_WORDS[COMP_CWORD]}"
    if (( COMP_CWORD > 1 )); then command="${COMP_WORDS[1]}"; fi
    local words="$(_effattack_words "$command" "${COMP_WORDS[COMP_CWORD-1]}" "$current")"
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _effattack effattack
""",
    "zsh": """_effattack() {
    local command="" found
    if (( CURRENT > 2 )); then command="${words[2]}"; fi
    found=(${=$(_effattack_words "$command" "${words[CURRENT-1]}" "${words[CURRENT]}")})
    compadd -a found || _files
}
if (( ! $+functions[compdef] )); then autoload -Uz compinit && compinit; fi
compdef _effattack effattack
""",
}
"""How a shell asks for words, and goes on to files where there are none."""


def arguments(completion: argparse.ArgumentParser) -> None:
    completion.add_argument("shell", choices=list(_SHELLS))


def run(options: argparse.Namespace, console: Console) -> int:
    print(_words(options.parsers()) + _SHELLS[options.shell], end="")
    return 0


def _words(commands: dict[str, argparse.ArgumentParser]) -> str:
    """The function that both shells ask, from the parsers of all commands.

    After an option come its values, or files where they cannot be listed; options are offered once
    a dash is typed.
    """
    victims = sorted(entries(VICTIMS))
    values: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    for name, parser in commands.items():
        for action in parser._actions:
            known = victims if action.dest in ("victim", "twin") else _choices(action)
            if action.option_strings:
                words.setdefault(rf"{name}\ -*", []).extend(action.option_strings)
            if action.option_strings and action.nargs is None:
                values["|".join(action.option_strings)] = known
            elif known:
                words[rf"{name}\ *"] = known
    files = [option for option, known in values.items() if not known]
    values = {option: known for option, known in values.items() if known} | {"|".join(files): []}
    return _WORDS.format(commands=" ".join(commands), values=_cases(values), words=_cases(words))


def _choices(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or ()]


def _cases(words: dict[str, list[str]]) -> str:
    return "\n".join(f'        {k}) echo "{" ".join(v)}"; return ;;' for k, v in words.items())
