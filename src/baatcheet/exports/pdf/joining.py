"""Several PDF files of the typesetter's as one: pages with their feet, bookmarks, links between the files, structure.

The typesetter needs memory for each page of a file, and knows no page number before it has set the last page. So a
document is set in parts, and its feet in a file of their own, when the pages have been counted. Here they become one
file, part by part, so that no more than one part is in memory.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import IO, Final, NamedTuple
from xml.sax.saxutils import escape

from baatcheet.exports.pdf.objects import (
    Body,
    File,
    Malformed,
    Mark,
    Name,
    Ref,
    Text,
    Value,
    dictionary,
    items_of,
    moved,
    parse,
    reference,
    renumbered,
    text,
    written,
)
from baatcheet.exports.pdf.writing import Output

LINK_SCHEME: Final = b"baatcheet-mark:"  # the address of a link to a heading: this and the heading's number
_FOOT: Final = "BaatCheetFoot"


class Heading(NamedTuple):
    """A heading, as a bookmark shows it. `level` 1 is a conversation, 2 a message, and so on."""

    level: int
    title: str


class About(NamedTuple):
    """What a PDF says of itself."""

    title: str
    author: str
    at: datetime  # UTC


class _Link(NamedTuple):
    """A link to a heading: the object, what stands in it, and the heading's number."""

    number: int
    annotation: dict[str, Value]
    mark: int


class Joined:
    """The file that grows: `add` its parts in their order, the front last, then its `feet`, then `finish`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._output = Output(file)
        self._tree = self._output.new()  # of pages
        self._structure = _Structure(self._output)
        # What stands around a page's own content.
        self._before, self._after = self._output.new(), self._output.new()
        self._output.stream(self._before, {}, b"q\n", compressed=False)
        foot = b"\nQ\n/Artifact BMC\nq\n/%b Do\nQ\nEMC\n" % _FOOT.encode()
        self._output.stream(self._after, {}, foot, compressed=False)
        self._trees: list[int] = []  # of the pages of each part
        self._feet: list[int] = []  # for each page: the form that will be laid over it
        self._marks: list[Mark] = []
        self._links: list[_Link] = []

    @property
    def pages(self) -> int:
        return len(self._feet)

    def add(self, file: File, *, front: bool = False) -> None:
        """Take the pages of `file`, and the headings on them.

        `front`: they come before all others, and the links on them lead to headings.
        """
        pages = file.pages()
        root = reference(file.root["Pages"])
        by = self._output.reserve(file.size - 1)
        feet = self._output.reserve(len(pages)) + 1
        parents_by = self._structure.next_parent
        done = {root, *pages, *_bookkeeping(file), *self._structure.add(file, by, front=front)}
        for number in range(1, file.size):
            if number in done:
                continue
            body = file.body(number)
            if front and _is_marked(body):
                self._link(body, number, by, parents_by)
            else:
                self._copy(body, number, by, parents_by)
        for foot, number in enumerate(pages, feet):
            self._page(file, number, foot, by, parents_by)
        tree = dictionary(moved(file.dictionary(root), by))
        self._output.object(root + by, written({**tree, "Parent": Ref(self._tree)}))
        place = 0 if front else self.pages
        self._feet[place:place] = range(feet, feet + len(pages))
        self._trees.insert(0 if front else len(self._trees), root + by)
        self._marks += [mark._replace(page=mark.page + by) for mark in file.marks()]

    def feet(self, file: File, first: int) -> None:
        """Take the pages of `file` as forms, the first of them to be laid over page `first`, counted from 1."""
        pages = file.pages()
        by = self._output.reserve(file.size - 1)
        for number in range(1, file.size):
            if number not in pages:
                self._copy(file.body(number), number, by, 0)
        for foot, number in enumerate(pages, first - 1):
            page = file.dictionary(number)
            body = file.body(reference(page["Contents"]))
            form = dictionary(parse(body.value))
            form |= {"Type": Name("XObject"), "Subtype": Name("Form"), "BBox": page["MediaBox"]}
            form["Resources"] = moved(page["Resources"], by)
            self._output.object(self._feet[foot], written(form), body.stream)

    def finish(self, headings: Sequence[Heading], about: About) -> None:
        """Write what holds it together. `headings`: one for each that was set, in their order."""
        if len(headings) != len(self._marks):
            raise Malformed(f"{len(self._marks)} headings were set, of {len(headings)}")
        for link in self._links:
            changed = {key: value for key, value in link.annotation.items() if key != "A"}
            self._output.object(link.number, written({**changed, "Dest": _place(self._marks[link.mark])}))
        trees: list[Value] = [Ref(number) for number in self._trees]
        self._output.object(self._tree, written({"Type": Name("Pages"), "Kids": trees, "Count": self.pages}))
        metadata = self._output.new()
        self._output.stream(
            metadata, {"Type": Name("Metadata"), "Subtype": Name("XML")}, _xmp(about), compressed=False
        )
        catalog: dict[str, Value] = {
            "Type": Name("Catalog"),
            "Pages": Ref(self._tree),
            "Lang": Text(b"(en)"),
            "PageMode": Name("UseOutlines"),
            "ViewerPreferences": {"DisplayDocTitle": True},
            "MarkInfo": {"Marked": True},
            "StructTreeRoot": Ref(self._structure.finish()),
            "Metadata": Ref(metadata),
        }
        if headings:
            catalog["Outlines"] = Ref(_bookmarks(self._output, headings, self._marks))
        self._output.finish(self._output.add(catalog), self._output.add(_info(about)))

    def _page(self, file: File, number: int, foot: int, by: int, parents_by: int) -> None:
        page = file.dictionary(number)
        resources = dictionary(file.resolved(page["Resources"]))
        forms = dictionary(moved(file.resolved(resources.get("XObject", {})), by))
        resources = dictionary(
            moved({key: value for key, value in resources.items() if key != "XObject"}, by)
        )
        contents = page.get("Contents", [])
        streams = contents if isinstance(contents, list) else [contents]
        page = dictionary(moved({key: value for key, value in page.items() if key != "Resources"}, by))
        page["Resources"] = {**resources, "XObject": {**forms, _FOOT: Ref(foot)}}
        page["Contents"] = [Ref(self._before), *(moved(one, by) for one in streams), Ref(self._after)]
        if isinstance(parents := page.get("StructParents"), int):
            page["StructParents"] = parents + parents_by
        self._output.object(number + by, written(page))

    def _copy(self, body: Body, number: int, by: int, parents_by: int) -> None:
        self._output.object(number + by, renumbered(body.value, by, parents_by), body.stream)

    def _link(self, body: Body, number: int, by: int, parents_by: int) -> None:
        """A link to a heading that is not set yet: it is written when all are."""
        annotation = dictionary(parse(renumbered(body.value, by, parents_by)))
        address = dictionary(annotation["A"])["URI"]
        if not isinstance(address, Text):
            raise Malformed(f"a link to {address!r}")
        self._links.append(_Link(number + by, annotation, int(address[1 + len(LINK_SCHEME) : -1])))


class _Structure:
    """What is a heading, a paragraph, a list: the document that screen readers follow, made of those of the parts."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._root = output.new()
        self._document = output.new()
        self._children: list[Value] = []
        self._parents: list[Value] = []
        self._roles: Value = None
        self.next_parent = 0

    def add(self, file: File, by: int, *, front: bool) -> set[int]:
        """Take over the structure of a part, which becomes a part of the whole; the objects that are done with."""
        number = reference(file.root["StructTreeRoot"])
        root = file.dictionary(number)
        kids = file.resolved(root.get("K"))
        done = {number}
        for kid in kids if isinstance(kids, list) else [] if kids is None else [kids]:
            at = reference(kid)
            element = dictionary(moved(file.dictionary(at), by))
            self._output.object(at + by, written({**element, "S": Name("Part"), "P": Ref(self._document)}))
            self._children.insert(0 if front else len(self._children), Ref(at + by))
            done.add(at)
        self._roles = root.get("RoleMap", self._roles)
        self._add_parents(_numbers(file, file.resolved(root.get("ParentTree"))), by)
        return done

    def _add_parents(self, numbers: Sequence[tuple[int, Value]], by: int) -> None:
        """Take over the pairs of the tree that leads from the pages' contents to the structure."""
        if not numbers:
            return
        pairs: list[Value] = []
        for key, value in numbers:
            pairs += [key + self.next_parent, moved(value, by)]
        first, last = numbers[0][0] + self.next_parent, numbers[-1][0] + self.next_parent
        self._parents.append(Ref(self._output.add({"Limits": [first, last], "Nums": pairs})))
        self.next_parent = last + 1

    def finish(self) -> int:
        """Write the root; its object."""
        document: Value = {
            "Type": Name("StructElem"),
            "S": Name("Document"),
            "P": Ref(self._root),
            "K": self._children,
        }
        root: dict[str, Value] = {
            "Type": Name("StructTreeRoot"),
            "K": [Ref(self._document)],
            "ParentTree": {"Kids": self._parents},
            "ParentTreeNextKey": self.next_parent,
        }
        if self._roles is not None:
            root["RoleMap"] = self._roles
        self._output.object(self._document, written(document))
        self._output.object(self._root, written(root))
        return self._root


def _bookmarks(output: Output, headings: Sequence[Heading], marks: Sequence[Mark]) -> int:
    """Write the tree of bookmarks; its object. A single conversation is open, and all else is closed."""
    root = output.new()
    first = output.reserve(len(headings)) + 1
    parents: list[int] = []
    children: dict[int, list[int]] = {root: []}
    above: list[tuple[int, int]] = []  # the bookmarks that the next may be under, with their levels
    for number, heading in enumerate(headings, first):
        while above and above[-1][0] >= heading.level:
            above.pop()
        parents.append(above[-1][1] if above else root)
        children.setdefault(parents[-1], []).append(number)
        above.append((heading.level, number))
    after: dict[int, int] = {}
    for kids in children.values():
        after |= pairwise(kids)
    before = {following: number for number, following in after.items()}
    top = children[root]
    opened = {root, top[0]} if len(top) == 1 else {root}
    for number, heading, parent, mark in zip(
        range(first, first + len(headings)), headings, parents, marks, strict=True
    ):
        item: dict[str, Value] = {"Title": text(heading.title), "Parent": Ref(parent), "Dest": _place(mark)}
        if number in before:
            item["Prev"] = Ref(before[number])
        if number in after:
            item["Next"] = Ref(after[number])
        if under := children.get(number):
            item |= {"First": Ref(under[0]), "Last": Ref(under[-1])}
            item["Count"] = len(under) if number in opened else -len(under)
        output.object(number, written(item))
    shown = sum(len(children.get(number, [])) for number in opened)
    output.object(
        root, written({"Type": Name("Outlines"), "First": Ref(top[0]), "Last": Ref(top[-1]), "Count": shown})
    )
    return root


def _place(mark: Mark) -> Value:
    """Where a link to a heading leads: a little above it."""
    return [Ref(mark.page), Name("XYZ"), max(0.0, mark.x - 6), mark.y + 6, 0]


def _bookkeeping(file: File) -> set[int]:
    """The objects of a part that the whole has one of: catalogue, metadata, bookmarks."""
    metadata = file.root.get("Metadata")
    return {file.root_number, *file.bookmarks(), *([metadata.number] if isinstance(metadata, Ref) else [])}


def _is_marked(body: Body) -> bool:
    return body.stream is None and b"/URI(" + LINK_SCHEME in body.value


def _numbers(file: File, node: Value) -> list[tuple[int, Value]]:
    """The pairs of a tree of numbers. There is none where nothing on the pages has a structure."""
    if node is None:
        return []
    node = dictionary(node)
    found: list[tuple[int, Value]] = []
    pairs, kids = items_of(node.get("Nums", [])), items_of(node.get("Kids", []))
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, int):
            raise Malformed(f"no number: {key!r}")
        found.append((key, value))
    for kid in kids:
        found += _numbers(file, file.resolved(kid))
    return found


def _info(about: About) -> Value:
    info: dict[str, Value] = {
        "Title": text(about.title),
        "Creator": Text(b"(BaatCheet)"),
        "Producer": Text(b"(BaatCheet, Typst)"),
        "CreationDate": Text(f"(D:{about.at:%Y%m%d%H%M%S}Z)".encode()),
    }
    if about.author:
        info["Author"] = text(about.author)
    return info


def _xmp(about: About) -> bytes:
    creator = f"<dc:creator><rdf:Seq><rdf:li>{escape(about.author)}</rdf:li></rdf:Seq></dc:creator>"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:pdf="http://ns.adobe.com/pdf/1.3/">'
        "<dc:format>application/pdf</dc:format><dc:title><rdf:Alt>"
        f'<rdf:li xml:lang="x-default">{escape(about.title)}</rdf:li></rdf:Alt></dc:title>'
        f"{creator if about.author else ''}<xmp:CreatorTool>BaatCheet</xmp:CreatorTool>"
        f"<xmp:CreateDate>{about.at:%Y-%m-%dT%H:%M:%S}Z</xmp:CreateDate>"
        "<pdf:Producer>BaatCheet, Typst</pdf:Producer>"
        '</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode("utf-8", "replace")
