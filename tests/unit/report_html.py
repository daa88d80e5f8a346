"""Read a page as a browser would: elements, attributes, texts, table rows."""

from html.parser import HTMLParser


class Parsed(HTMLParser):
    """What a page holds. `bdi` are the texts that come from data, each as it would be shown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.bdi: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.styles: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "link", "br"):
            self._open.append(tag)
        if tag == "bdi":
            self.bdi.append("")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.styles[-1] += data
            return
        self.text += data
        if "bdi" in self._open:
            self.bdi[-1] += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] = (self.rows[-1][-1] + data).strip()

    def close(self) -> None:
        super().close()
        assert not self._open, f"never closed: {self._open}"


def parse(page: str) -> Parsed:
    """Parse a page; AssertionError when its elements are not nested rightly."""
    parsed = Parsed()
    parsed.feed(page)
    parsed.close()
    return parsed
