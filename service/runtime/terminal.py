"""Text from outside, made safe for a terminal: shown, and unable to steer it.

Control characters (ESC and C1 among them) move the cursor, change colours or set the clipboard;
marks of direction (bidi) show text in another order than it has. Both appear as escapes.
"""

import json


def escaped(text: str) -> str:
    """``text`` with each character that is not printed as itself as an escape, newlines too."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def on_one_line(text: str) -> str:
    """``text``, escaped, its white space as single spaces."""
    return escaped(" ".join(text.split()))


def escaped_json(text: str) -> str:
    """The same JSON with the same meaning; ``text`` is one line of it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
