"""A page as a person or a browser reads it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a person sees, the rows of tables, tables by name, what a browser would load, and what each script holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._inside = self._region = ""
        self._in_cell = False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.loads += [given[name] for name in ("src", "href", "srcset", "data", "action", "poster") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts.append("")
        elif given.get("role") == "region":
            self._region = given["aria-label"]
        elif tag == "table":
            self.tables[self._region] = []
        elif tag == "tr":
            self.rows.append([])
            self.tables[self._region].append(self.rows[-1])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data
            return
        self.words.append(data)
        if self._in_cell and data.strip():
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def row(self, label: str) -> list[str]:
        [found] = [row for row in self.rows if row and row[0].startswith(label)]
        return found[1:]

    def column(self, table: str, head: str) -> list[str]:
        """What stands under a head, from row to row."""
        heads, *rows = self.tables[table]
        return [row[heads.index(head)] for row in rows]


def share(value: float) -> str:
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"
