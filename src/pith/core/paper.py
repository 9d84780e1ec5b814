"""Where a method comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A published paper.

    Attributes:
        arxiv: the arXiv id, such as `"2404.14469"`; empty where the method is Pith's own baseline.
        title: the paper's title.
        authors: its authors, the first one and "et al." where they are many.
        year: the year of its first version.
        code: the authors' repository as `owner/name` on GitHub; empty where none was published.
    """

    arxiv: str
    title: str
    authors: str
    year: int
    code: str = ""

    @property
    def url(self) -> str:
        """The paper's page, or an empty string where there is none."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""
