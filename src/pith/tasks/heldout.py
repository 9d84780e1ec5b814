"""Held-out text: the language reference topics that ship inside every CPython."""

from pydoc_data import topics


def heldout_text() -> str:
    """Return every topic of ``pydoc_data.topics``, in sorted order, as one text.

    The built-in model never saw it, so it serves for perplexity and as filler of the retrieval tasks.
    The text depends on the running interpreter's version (about 0.45 million characters).
    """
    return "\n".join(topics.topics[name].strip("\n") + "\n" for name in sorted(topics.topics))
