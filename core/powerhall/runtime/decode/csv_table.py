"""Tables from outside as text: CSV and its relatives, row by row with the number of the line."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from powerhall.runtime.decode.bytes_in import open_text
from powerhall.runtime.decode.limits import MOST_COLUMNS, enlarged
from powerhall.runtime.errors import Rejected

__all__ = ["CsvTable", "read_csv"]

Row = dict[str, str | None]


class CsvTable:
    """Rows of a table with a header; iterating raises Rejected with the line where the text is no table.

    Cells that are missing at a row's end are None; cells beyond the header are one text under "extra cells".
    """

    def __init__(self, text: TextIO, source: str, delimiter: str = ",", *, quotes: bool = True) -> None:
        self._source = source
        self._cells = (
            csv.reader(text, delimiter=delimiter)
            if quotes
            else csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        )
        self.header = next(self._rows(), [])
        if len(self.header) > enlarged(MOST_COLUMNS):
            raise Rejected(f"{source}: header: more than {enlarged(MOST_COLUMNS)} columns")
        for name in self.header:
            if name and self.header.count(name) > 1:
                raise Rejected.field(source, "header", name, "must be there once")

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        """Yield the number of the line where a row ends, and the row; empty lines are left out."""
        for cells in self._rows():
            if not cells:
                continue
            row: Row = dict.fromkeys(self.header)
            row.update(zip(self.header, cells, strict=False))
            if len(cells) > len(self.header):
                row["extra cells"] = ",".join(cells[len(self.header) :])
            yield self._cells.line_num, row

    def _rows(self) -> Iterator[list[str]]:
        try:
            yield from self._cells
        except csv.Error as error:
            raise Rejected(f"{self._source}: line {self._cells.line_num}: {error}") from None


def read_csv(path: str | Path, delimiter: str = ",", *, quotes: bool = True) -> CsvTable:
    """Read a table from a file, gzip or plain."""
    return CsvTable(open_text(path), str(path), delimiter, quotes=quotes)
