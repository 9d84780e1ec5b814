"""A comparison as people see it: one table, its charts, one page that opens offline, and files for papers.

The terminal, the page and whatever comes later share the rows, the table and the sentences made here.
"""

from pith.report.page import write
from pith.report.row import Row, label, rows
from pith.report.table import READING, Cell, Column, Table, reading, table
from pith.report.verdict import verdict

__all__ = ["READING", "Cell", "Column", "Row", "Table", "label", "reading", "rows", "table", "verdict", "write"]
