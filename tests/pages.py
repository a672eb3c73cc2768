"""Reading HTML pages in tests."""

import html.parser


class Outline(html.parser.HTMLParser):
    """The elements and the text of a page; fails where they are not nested."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    @property
    def needs_nothing_else(self) -> bool:
        """Whether the page refers to nothing outside of itself, and runs nothing."""
        links = [value for _, attributes in self.elements for key, value in attributes.items()
                 if key in ("src", "href", "xlink:href")]  # fmt: skip
        inside = all(link.startswith(("data:", "#")) for link in links)
        return inside and not any(tag in ("script", "link", "iframe", "object") for tag, _ in self.elements)

    @property
    def images(self) -> list[bytes]:
        """The embedded PNGs."""
        import base64

        start = "data:image/png;base64,"
        sources = [attributes.get("src", "") for tag, attributes in self.elements if tag == "img"]
        return [base64.b64decode(source.removeprefix(start)) for source in sources if source.startswith(start)]
