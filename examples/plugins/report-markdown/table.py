"""Rows as a Markdown table. Knows nothing of components, so that plain Python can test it."""


def shown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def table(rows: list[list[tuple[str, str]]]) -> str:
    """The rows, each a list of names and values; the first one names the columns."""
    lines = [[name for name, _ in rows[0]], ["---"] * len(rows[0])]
    lines += [[shown(value) for _, value in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
