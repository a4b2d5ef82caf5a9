"""Parts of a document that are made from the code: they stand between two comments, and a test compares them."""


def replace_between(text: str, begin: str, end: str, part: str) -> str:
    """The text with everything from `begin` to `end`, both included, replaced by `part`."""
    before, rest = text.split(begin)
    return before + part + rest.split(end)[1]
