"""Files: which are read, as what, and what is said of those that are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from palaver.core.ports.admin import SkippedFile
from palaver.core.ports.documents import UnreadableDocument
from palaver.knowledge import files
from palaver.knowledge.files import DocumentSource, digest, load, walk
from palaver.knowledge.read import ParsedDocument, decode, parse


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def document(path: Path) -> ParsedDocument:
    source = DocumentSource(path=path, name=path.name)
    raw = load(source)
    assert isinstance(raw, bytes)
    return parse(source.name, source.kind, raw)


def reasons(*paths: Path) -> dict[str, str]:
    return {found.name: found.reason for found in walk(paths) if isinstance(found, SkippedFile)}


def names(*paths: Path) -> list[str]:
    return [found.name for found in walk(paths) if isinstance(found, DocumentSource)]


def test_a_folder_is_read_with_all_below_it_in_order(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "sub/c.html", "sub/deep/d.MARKDOWN", ".hidden.md", ".git/e.md", "sub/.x/f.md"):
        put(tmp_path / name, "x")
    assert names(tmp_path) == ["a.txt", "b.md", "sub/c.html", "sub/deep/d.MARKDOWN"]
    assert names(tmp_path / "sub" / "c.html") == ["c.html"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    put(tmp_path / "sub" / "a.md", "x")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "self.md").symlink_to(tmp_path / "sub" / "self.md")
    assert names(tmp_path / "sub").count("a.md") == 1
    assert "up/sub/a.md" not in names(tmp_path / "sub")


def test_what_cannot_be_read_is_named_with_a_reason(tmp_path: Path) -> None:
    put(tmp_path / "picture.png", b"\x89PNG")
    assert reasons(tmp_path) == {"picture.png": "not Markdown, text or HTML"}
    assert reasons(tmp_path / "missing.md") == {str(tmp_path / "missing.md"): "there is no such file or folder"}


def test_two_files_of_one_name_are_two_documents_and_one_given_twice_is_one(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one" / "a.md", "x"), put(tmp_path / "two" / "a.md", "y")
    keys = [(str(folder), "a.md") for folder in (one.parent, two.parent)]
    for paths in ([one.parent, two.parent], [one, two], [one.parent, two, one, two.parent]):
        assert [found.key for found in walk(paths) if isinstance(found, DocumentSource)] == keys


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    for name in ("菜单.md", "价格.md"):
        (tmp_path / os.fsdecode(name.encode("gbk"))).write_text("x")
    assert [found.reason for found in walk([tmp_path]) if isinstance(found, SkippedFile)] == [
        "its name is not UTF-8"
    ] * 2
    assert names(tmp_path) == []


def test_binary_and_large_and_strange_files_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    large = load(DocumentSource(path=put(tmp_path / "large.md", "x" * 1001), name="large.md"))
    assert isinstance(large, SkippedFile)
    os.mkfifo(tmp_path / "pipe.md")
    pipe = load(DocumentSource(path=tmp_path / "pipe.md", name="pipe.md"))
    assert isinstance(pipe, SkippedFile)
    assert pipe.reason == "not a regular file"
    gone = load(DocumentSource(path=tmp_path / "gone.md", name="gone.md"))
    assert isinstance(gone, SkippedFile)
    for content in (b"PK\x03\x04\0\0", bytes(range(1, 32)) * 20):
        with pytest.raises(UnreadableDocument, match="not text"):
            parse("b.txt", "text", content)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("你好，世界".encode(), "你好，世界"),
        ("你好，世界".encode("gb18030"), "你好，世界"),
        ("鱼香肉丝 with GBK".encode("gbk"), "鱼香肉丝 with GBK"),
        ("été à la café".encode("latin-1"), "été à la café"),
        ("你好".encode("utf-8-sig"), "你好"),
        ("你好".encode("utf-16"), "你好"),
        ("你好".encode("utf-32"), "你好"),
        (b"", ""),
    ],
)
def test_a_text_is_decoded_by_what_it_looks_like(raw: bytes, text: str) -> None:
    assert decode(raw) == text


def test_a_page_is_decoded_by_what_it_says_of_itself() -> None:
    for charset, text in (("shift_jis", "日本語"), ("gb2312", "镕基"), ("big5", "繁體"), ("windows-1251", "Привет")):
        page = f'<html><meta http-equiv="Content-Type" content="text/html; charset={charset}"><p>{text}</p>'
        encoding = "gb18030" if charset == "gb2312" else charset
        assert text in (decode(page.encode(encoding), html=True) or "")
    assert decode("<meta charset='no-such'>é".encode(), html=True) == "<meta charset='no-such'>é"


def test_front_matter_gives_the_title_and_is_no_text(tmp_path: Path) -> None:
    read = document(put(tmp_path / "a.md", '---\ntitle: "The: Guide"\ntags:\n  - x\n---\n# One\n\nText\n'))
    assert (read.title, read.text) == ("The: Guide", "One\n\nText")
    assert document(put(tmp_path / "b.md", '+++\ntitle = "T"\n+++\ntext')).title == "T"


def test_a_line_at_the_beginning_is_not_front_matter(tmp_path: Path) -> None:
    read = document(put(tmp_path / "a.md", "---\nOnce upon a time there was a line\n---\nand another\n"))
    assert "Once upon a time" in read.text


def test_a_title_is_the_first_heading_or_the_file_s_name(tmp_path: Path) -> None:
    assert document(put(tmp_path / "a.md", "intro\n\n# The *big* [Guide](x)\n")).title == "The big Guide"
    assert document(put(tmp_path / "notes.txt", "just text")).title == "notes"
    assert document(put(tmp_path / "a.rst", "Title\n=====\n\ntext\n")).title == "Title"


def test_a_page_is_what_its_reader_sees(tmp_path: Path) -> None:
    page = """<html><head><title>A
      page</title><style>css</style></head><body><nav>menu</nav><h1>Top<a href="#t">¶</a></h1>
      <p>One <b>bo</b>ld<br>line</p><ul><li>a<ul><li>b</ul><li><p>c</p></ul><ol start="3"><li>x</ol>
      <pre>if x:
    y()</pre><table><tr><th>K</th><th>V</th></tr><tr><td>1</td><td><p>2</p></td></tr></table>
      <script>bad()</script><template>bad</template><p hidden>bad</p><img alt="A cat"></body></html>"""
    read = document(put(tmp_path / "p.html", page))
    assert read.title == "A page"
    assert [block.whole for block in read.blocks] == [
        "Top",
        "One bold\nline",
        "- a\n  - b\n- c",
        "3. x",
        "```\nif x:\n    y()\n```",
        "| K | V |\n| --- | --- |\n| 1 | 2 |",
        "A cat",
    ]


def test_a_table_that_holds_the_page_is_no_table(tmp_path: Path) -> None:
    page = "<table><tr><td>menu<td><h2>News</h2><p>Text</p></td></tr></table>"
    assert [block.kind for block in document(put(tmp_path / "p.htm", page)).blocks] == ["prose", "heading", "prose"]


def test_the_main_part_of_a_page_is_enough(tmp_path: Path) -> None:
    page = "<header>Shop</header><main><p>Text</p></main><footer>Imprint</footer>"
    assert document(put(tmp_path / "p.html", page)).text == "Text"


def test_a_page_may_nest_as_deep_as_browsers_let_it(tmp_path: Path) -> None:
    assert document(put(tmp_path / "p.html", "<div>" * 500 + "deep")).text == "deep"
    for depth in (600, 5_000):
        with pytest.raises(UnreadableDocument, match="too deeply nested"):
            document(put(tmp_path / "p.html", "<div>" * depth + "deep"))


def test_html_inside_markdown_is_read_as_html(tmp_path: Path) -> None:
    read = document(put(tmp_path / "a.md", '<h1 align="center">Name</h1>\n\n<!-- not this -->\n\ntext\n'))
    assert (read.title, read.text) == ("Name", "Name\n\ntext")


def test_chapters_of_a_chinese_text_are_headings(tmp_path: Path) -> None:
    read = document(
        put(tmp_path / "a.txt", "第一章 总则\n第一条 内容。\n第二章这一句不是标题。\n第十二节　附则\n末尾\n")
    )
    assert [(block.kind, block.level) for block in read.blocks] == [
        ("heading", 2), ("prose", 0), ("heading", 3), ("prose", 0)
    ]  # fmt: skip


def test_the_digest_changes_with_the_bytes_and_the_kind(tmp_path: Path) -> None:
    def of(name: str, content: bytes) -> bytes:
        return digest(DocumentSource(path=tmp_path / name, name=name), content)

    assert of("a.md", b"x") == of("b.md", b"x")
    assert of("a.md", b"x") != of("a.txt", b"x")
    assert of("a.md", b"x") != of("a.md", b"y")
    assert len(of("a.md", b"x")) == 32
