"""Several PDF files of the typesetter's as one: pages with their feet, bookmarks, links between the files, structure.

The typesetter needs memory for each page of a file, and knows no page number before it has set the last page. So a
document is set in parts, and its feet in a file of their own, when the pages have been counted. Here they become one
file, part by part, so that no more than one part is in memory.
"""

import hashlib
import zlib
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Final, NamedTuple
from xml.sax.saxutils import escape

from baatcheet.exports.pdf.objects import Body, File, Malformed, Mark, Name, Ref, Text, Value, moved, parse, renumbered, resolved, text, written

FOOT: Final = "BaatCheetFoot"
LINK_SCHEME: Final = "baatcheet-mark:"  # the address of a link to a heading: this and the heading's number
_PACKED: Final = 200  # objects in one stream of objects
_ID: Final = "%Y-%m-%dT%H:%M:%S"


class Heading(NamedTuple):
    """A heading, as a bookmark shows it. `level` 1 is a conversation, 2 a message, and so on."""

    level: int
    title: str


class About(NamedTuple):
    """What a PDF says of itself."""

    title: str
    author: str
    at: datetime


class Joined:
    """The file that grows: `add` its parts in their order, then `finish`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = 0
        # For each object: 0 and its place in the file, or the stream that it is in and its place there.
        self._holders = array("Q", [0])
        self._places = array("Q", [0])
        self._waiting: list[tuple[int, bytes]] = []
        self._digest = hashlib.sha256()
        self._put(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        self._catalog = self._new()
        self._tree = self._new()  # of pages
        self._structure = self._new()
        self._whole = self._new()  # the document, in the structure
        self._before, self._after = self._new(), self._new()  # what stands around a page's own content
        self._pages: list[int] = []
        self._roots: list[tuple[int, int]] = []  # of the trees of pages, with their sizes
        self._marks: list[Mark] = []
        self._links: list[tuple[int, dict[str, Value], int]] = []
        self._children: list[Ref] = []
        self._parents: list[Ref] = []
        self._next_parent = 0
        self._stream(self._before, {}, b"q\n", compressed=False)
        self._stream(self._after, {}, b"\nQ\n/Artifact BMC\nq\n/%b Do\nQ\nEMC\n" % FOOT.encode(), compressed=False)

    @property
    def pages(self) -> int:
        return len(self._pages)

    @property
    def marks(self) -> int:
        return len(self._marks)

    def feet(self, path: Path) -> list[int]:
        """The pages of the file at `path` as forms that can be laid over others; their objects."""
        file = File(path.read_bytes())
        pages = file.pages()
        by = self._reserve(file.size)
        for number in range(1, file.size):
            if number not in pages:
                self._copy(number + by, file.body(number), by)
        for number in pages:
            page = file.dictionary(number)
            content = page["Contents"]
            if not isinstance(content, Ref):
                raise Malformed("a foot of several streams")
            body = file.body(content.number)
            assert body.stream is not None
            form = parse(body.value)
            assert isinstance(form, dict)
            form |= {"Type": Name("XObject"), "Subtype": Name("Form"), "BBox": page["MediaBox"]}
            form["Resources"] = moved(page["Resources"], by)
            self._object(number + by, written(form), body.stream)
        return [number + by for number in pages]

    def add(self, path: Path, feet: Sequence[int], marks: Sequence[Mark] = (), *, front: bool = False) -> None:
        """The pages of the file at `path`, each with the next of `feet`, and the headings in it, which are at `marks`.
        `front`: the links in it lead to headings.
        """
        file = File(path.read_bytes())
        pages = file.pages()
        by = self._reserve(file.size)
        root = file.root["Pages"]
        assert isinstance(root, Ref)
        own = self._structure_of(file, by)
        left_out = _bookkeeping(file) | own
        foot = dict(zip(pages, feet[len(self._pages) :], strict=False))
        for number in range(1, file.size):
            if number in left_out:
                continue
            if number in foot:
                self._page(file, number, by, foot[number])
            elif number == root.number:
                tree = file.dictionary(number)
                tree["Parent"] = Ref(self._tree - by)
                self._object(number + by, written(moved(tree, by)))
            elif front and _is_marked(body := file.body(number)):
                self._link(number + by, body, by)
            else:
                self._copy(number + by, file.body(number), by)
        self._roots.append((root.number + by, len(pages)))
        self._pages += [number + by for number in pages]
        self._marks += [mark._replace(page=mark.page + by) for mark in marks]

    def finish(self, headings: Sequence[Heading], about: About) -> None:
        """Write what holds it together. `headings`: one for each that was set, in their order."""
        if len(headings) != len(self._marks):
            raise Malformed(f"{len(self._marks)} headings were set, of {len(headings)}")
        for number, annotation, mark in self._links:
            del annotation["A"]
            self._object(number, written(annotation | {"Dest": self._place(self._marks[mark])}))
        tree: Value = {
            "Type": Name("Pages"),
            "Kids": [Ref(number) for number, _ in self._roots],
            "Count": len(self._pages),
        }
        self._object(self._tree, written(tree))
        self._write_structure()
        outlines = self._bookmarks(headings)
        metadata = self._new()
        self._stream(metadata, {"Type": Name("Metadata"), "Subtype": Name("XML")}, _xmp(about), compressed=False)
        catalog: dict[str, Value] = {
            "Type": Name("Catalog"),
            "Pages": Ref(self._tree),
            "Lang": Text(b"(en)"),
            "PageMode": Name("UseOutlines"),
            "ViewerPreferences": {"DisplayDocTitle": True},
            "MarkInfo": {"Marked": True},
            "StructTreeRoot": Ref(self._structure),
            "Metadata": Ref(metadata),
        }
        if outlines is not None:
            catalog["Outlines"] = Ref(outlines)
        self._object(self._catalog, written(catalog))
        info = self._new()
        self._object(info, written(_info(about)))
        self._write_table(info)

    # Parts ----------------------------------------------------------------------------------------------------------

    def _page(self, file: File, number: int, by: int, foot: int) -> None:
        page = file.dictionary(number)
        resources = resolved(file, page, "Resources")
        if not isinstance(resources, dict):
            raise Malformed("a page without resources")
        forms = resolved(file, resources, "XObject")
        contents = page.get("Contents", [])
        streams = contents if isinstance(contents, list) else [contents]
        shown = {key: value for key, value in moved(resources, by).items() if key != "XObject"}  # type: ignore[union-attr]
        shown["XObject"] = {**(moved(forms, by) if isinstance(forms, dict) else {}), FOOT: Ref(foot)}  # type: ignore[dict-item]
        changed = moved({key: value for key, value in page.items() if key not in {"Resources", "Contents"}}, by)
        assert isinstance(changed, dict)
        changed["Resources"] = shown
        changed["Contents"] = [Ref(self._before), *(moved(one, by) for one in streams), Ref(self._after)]
        if isinstance(parents := changed.get("StructParents"), int):
            changed["StructParents"] = parents + self._parents_by
        self._object(number + by, written(changed))

    def _copy(self, number: int, body: Body, by: int) -> None:
        self._object(number, renumbered(body.value, by, self._parents_by), body.stream)

    def _link(self, number: int, body: Body, by: int) -> None:
        """A link to a heading that is not set yet: it is written when all are."""
        annotation = parse(renumbered(body.value, by, self._parents_by))
        assert isinstance(annotation, dict)
        action = annotation["A"]
        assert isinstance(action, dict) and isinstance(action["URI"], Text)
        mark = int(action["URI"][1 + len(LINK_SCHEME) : -1])
        self._links.append((number, annotation, mark))

    def _structure_of(self, file: File, by: int) -> set[int]:
        """Take over the structure of a part: its document becomes a part of ours. What of it need not be copied."""
        self._parents_by = self._next_parent
        reference = file.root.get("StructTreeRoot")
        if not isinstance(reference, Ref):
            raise Malformed("no structure")
        root = file.dictionary(reference.number)
        kids = resolved(file, root, "K") or []
        done = {reference.number}
        for kid in kids if isinstance(kids, list) else [kids]:
            if not isinstance(kid, Ref):
                raise Malformed("a structure without a document")
            element = file.dictionary(kid.number)
            element = {**element, "S": Name("Part"), "P": Ref(self._whole - by)}
            self._object(kid.number + by, written(moved(element, by)))
            self._children.append(Ref(kid.number + by))
            done.add(kid.number)
        self._role_map = root.get("RoleMap")
        numbers = _numbers(file, resolved(file, root, "ParentTree"))
        if numbers:
            leaf = self._new()
            pairs: list[Value] = []
            for key, value in numbers:
                pairs += [key + self._parents_by, moved(value, by)]
            last = numbers[-1][0] + self._parents_by
            self._object(leaf, written({"Limits": [numbers[0][0] + self._parents_by, last], "Nums": pairs}))
            self._parents.append(Ref(leaf))
            self._next_parent = last + 1
        return done

    _parents_by = 0
    _role_map: Value = None

    def _write_structure(self) -> None:
        self._object(
            self._whole,
            written({"Type": Name("StructElem"), "S": Name("Document"), "P": Ref(self._structure), "K": list(self._children)}),
        )
        root: dict[str, Value] = {
            "Type": Name("StructTreeRoot"),
            "K": [Ref(self._whole)],
            "ParentTree": {"Kids": list(self._parents)},
            "ParentTreeNextKey": self._next_parent,
        }
        if self._role_map is not None:
            root["RoleMap"] = self._role_map
        self._object(self._structure, written(root))

    # Bookmarks ------------------------------------------------------------------------------------------------------

    def _place(self, mark: Mark) -> list[Value]:
        return [Ref(mark.page), Name("XYZ"), max(0.0, mark.x - 6), mark.y + 6, 0]

    def _bookmarks(self, headings: Sequence[Heading]) -> int | None:
        """The tree of bookmarks; conversations are open where there are few, all else is closed."""
        if not headings:
            return None
        root = self._new()
        numbers = [self._new() for _ in headings]
        parents: list[int] = []
        children: dict[int, list[int]] = {root: []}
        path: list[tuple[int, int]] = []  # the bookmarks above, with their levels
        for number, heading in zip(numbers, headings, strict=True):
            while path and path[-1][0] >= heading.level:
                path.pop()
            parent = path[-1][1] if path else root
            parents.append(parent)
            children.setdefault(parent, []).append(number)
            path.append((heading.level, number))
        neighbours: dict[int, tuple[int | None, int | None]] = {}
        for kids in children.values():
            around: list[int | None] = [None, *kids, None]
            for place, kid in enumerate(kids):
                neighbours[kid] = (around[place], around[place + 2])
        opened = len(children[root]) == 1
        for number, parent, heading, mark in zip(numbers, parents, headings, self._marks, strict=True):
            item: dict[str, Value] = {"Title": text(heading.title), "Parent": Ref(parent), "Dest": self._place(mark)}
            before, after = neighbours[number]
            if before is not None:
                item["Prev"] = Ref(before)
            if after is not None:
                item["Next"] = Ref(after)
            if kids := children.get(number):
                is_open = opened and parent == root
                item |= {"First": Ref(kids[0]), "Last": Ref(kids[-1]), "Count": len(kids) if is_open else -len(kids)}
            self._object(number, written(item))
        top = children[root]
        shown = len(top) + (len(children.get(top[0], [])) if opened else 0)
        self._object(
            root, written({"Type": Name("Outlines"), "First": Ref(top[0]), "Last": Ref(top[-1]), "Count": shown})
        )
        return root

    # The file -------------------------------------------------------------------------------------------------------

    def _new(self) -> int:
        self._holders.append(0)
        self._places.append(0)
        return len(self._places) - 1

    def _reserve(self, size: int) -> int:
        """Room for the objects 1 to `size` - 1 of a file: what is added to their numbers."""
        by = len(self._places) - 1
        self._holders.extend([0] * (size - 1))
        self._places.extend([0] * (size - 1))
        return by

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._at += len(data)

    def _object(self, number: int, value: bytes, stream: bytes | None = None) -> None:
        """Write an object: at once if it has a stream, and otherwise together with others, which takes a tenth of the room."""
        if stream is None:
            self._waiting.append((number, value))
            if len(self._waiting) >= _PACKED:
                self._pack()
            return
        self._places[number] = self._at
        self._put(b"%d 0 obj\n%b\nstream\n%b\nendstream\nendobj\n" % (number, value, stream))

    def _stream(self, number: int, entries: Mapping[str, Value], data: bytes, *, compressed: bool = True) -> None:
        stream = zlib.compress(data) if compressed else data
        how: dict[str, Value] = {"Filter": Name("FlateDecode")} if compressed else {}
        self._object(number, written({**entries, **how, "Length": len(stream)}), stream)

    def _pack(self) -> None:
        if not self._waiting:
            return
        holder = self._new()
        offsets, values, at = [], [], 0
        for place, (number, value) in enumerate(self._waiting):
            offsets.append(b"%d %d" % (number, at))
            values.append(value)
            at += len(value) + 1
            self._holders[number], self._places[number] = holder, place
        first = b" ".join(offsets) + b"\n"
        entries: dict[str, Value] = {"Type": Name("ObjStm"), "N": len(values), "First": len(first)}
        self._waiting = []
        self._stream(holder, entries, first + b"\n".join(values))

    def _write_table(self, info: int) -> None:
        self._pack()
        table = self._new()
        start = self._at
        self._places[table] = start
        rows = bytearray()
        for number, (holder, place) in enumerate(zip(self._holders, self._places, strict=True)):
            if number == 0 or not (holder or place):
                rows += b"\x00" + (0).to_bytes(5, "big") + (65535 if number == 0 else 0).to_bytes(2, "big")
            elif holder:
                rows += b"\x02" + holder.to_bytes(5, "big") + place.to_bytes(2, "big")
            else:
                rows += b"\x01" + place.to_bytes(5, "big") + b"\x00\x00"
        sign = Text(b"<" + self._digest.hexdigest()[:32].encode() + b">")
        entries: dict[str, Value] = {
            "Type": Name("XRef"),
            "Size": len(self._places),
            "W": [1, 5, 2],
            "Root": Ref(self._catalog),
            "Info": Ref(info),
            "ID": [sign, sign],
        }
        self._stream(table, entries, bytes(rows))
        self._put(b"startxref\n%d\n%%%%EOF\n" % start)


def _bookkeeping(file: File) -> set[int]:
    """The objects of a part that the whole has one of: catalogue, metadata, bookmarks."""
    metadata = file.root.get("Metadata")
    return {file.root_number, *file.bookmarks(), *([metadata.number] if isinstance(metadata, Ref) else [])}


def _is_marked(body: Body) -> bool:
    return body.stream is None and b"/URI(" + LINK_SCHEME.encode() in body.value and b"/Subtype/Link" in body.value


def _numbers(file: File, node: Value) -> list[tuple[int, Value]]:
    """The pairs of a number tree. There is none where nothing on the pages has a structure."""
    if node is None:
        return []
    if not isinstance(node, dict):
        raise Malformed("no tree of numbers")
    found: list[tuple[int, Value]] = []
    pairs = node.get("Nums", [])
    assert isinstance(pairs, list)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        assert isinstance(key, int)
        found.append((key, value))
    kids = node.get("Kids", [])
    assert isinstance(kids, list)
    for kid in kids:
        assert isinstance(kid, Ref)
        found += _numbers(file, file.value(kid.number))
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
    author = f"<dc:creator><rdf:Seq><rdf:li>{escape(about.author)}</rdf:li></rdf:Seq></dc:creator>" if about.author else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:pdf="http://ns.adobe.com/pdf/1.3/">'
        "<dc:format>application/pdf</dc:format>"
        f'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{escape(about.title)}</rdf:li></rdf:Alt></dc:title>{author}'
        f"<xmp:CreatorTool>BaatCheet</xmp:CreatorTool><xmp:CreateDate>{about.at.strftime(_ID)}Z</xmp:CreateDate>"
        "<pdf:Producer>BaatCheet, Typst</pdf:Producer>"
        '</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode("utf-8", "replace")
