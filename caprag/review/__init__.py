"""Looking over a run: a page for a person who checks the few captions that matter."""

from caprag.review.page import ReviewRow, read_results, write_page

__all__ = ["ReviewRow", "read_results", "write_page"]
