"""`--plugin MODULE`, an option of every command, at any place."""

from __future__ import annotations


def take_plugins(words: list[str]) -> tuple[list[str], list[str]]:
    """(the words without `--plugin MODULE` and `--plugin=MODULE`, the modules). Words after `--` stay as they are.

    Raises:
        UsageError: no module follows.

    >>> take_plugins(["train", "--plugin", "mine", "own", "--plugin=more.mine", "--", "--plugin"])
    (['train', 'own', '--', '--plugin'], ['mine', 'more.mine'])
    """
    from glassformer.errors import UsageError

    rest: list[str] = []
    modules: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            return [*rest, word, *left], modules
        if word == "--plugin":
            module = next(left, None)
            if module is None:
                raise UsageError("--plugin needs the name of a module, for example: --plugin my_losses")
            modules.append(module)
        elif word.startswith("--plugin="):
            modules.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, modules
