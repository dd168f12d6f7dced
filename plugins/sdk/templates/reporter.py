"""Writes the rows of a run as a Markdown table beside the results file."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import reporter
from wit_world.imports import files

from table import table


class Reporter(exports.Reporter):
    def report(self, request: reporter.ReportRequest) -> list[reporter.Produced]:
        if not request.rows:
            return []
        rows = [[(cell.name, value(cell.value)) for cell in row.cells] for row in request.rows]
        path = f"{request.output}.md"
        # An error of the host is handed on as it is: `files.write` raises it as `Err`.
        files.write(path, table(rows).encode(), 0o644)
        return [reporter.Produced(path, "text/markdown", f"{len(rows)} rows")]


def value(cell) -> str:
    return "" if isinstance(cell, reporter.CellValue_Blank) else cell.value
