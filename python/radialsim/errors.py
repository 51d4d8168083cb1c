"""What goes wrong, and where. Both are `ValueError`s, since both say that an input cannot be used."""


class TraceError(ValueError):
    """A trace that could not be read back: the place, what was found, what was expected."""


class RecordError(ValueError):
    """A run that would be recorded wrongly, named, with what to do instead."""
