"""The guard on real sockets: what is on the list is fetched, what is not is never even connected to."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import AsyncExitStack
from ipaddress import ip_address

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.kit import run
from support.web_servers import Act, Names, Outside, Writer, answer, pieces, redirect, refused

import palaver
from palaver.core.fetch import FetchedFile, FetchError
from palaver.tools.guard import MAX_CONCURRENT, MAX_REDIRECTS, Guard, session_to

# What is allowed ----------------------------------------------------------------------------------------------------


async def test_a_file_comes_with_its_name_and_type_and_the_address_it_was_found_at() -> None:
    file = answer(
        b"%PDF", Content_Type="application/pdf", Content_Disposition="attachment; filename*=UTF-8''%E4%BD%A0.pdf"
    )
    async with Outside.serving({"/a": redirect("/b?c"), "/b?c": file}) as outside:
        fetched = await Guard(allow=outside.place).get(f"{outside.url}/a#part")
    wanted = FetchedFile(url=f"{outside.url}/b?c", content=b"%PDF", media_type="application/pdf", name="你.pdf")
    assert fetched == wanted


async def test_a_request_says_who_asks_and_nothing_that_was_learnt_before() -> None:
    async with Outside.serving({"/": answer(b"x", Set_Cookie="a=b; Path=/")}) as outside:
        guard = Guard(allow="files.example", resolve=Names(files_example=[["127.0.0.1"]]))
        url = f"http://files.example:{outside.port}/"
        await guard.get(url)
        await guard.get(url)
    assert outside.connections == 2
    assert outside.header("Host") == f"files.example:{outside.port}"
    assert outside.header("User-Agent") == f"palaver/{palaver.__version__}"
    assert outside.header("Accept-Encoding") == "gzip, deflate"
    assert outside.header("Cookie") is None


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside, Outside.serving(host="127.0.0.2") as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await Guard(allow=outside.place).get(f"{outside.url}/")).content == b"x"
    assert proxy.connections == 0


@pytest.mark.parametrize("allow", ["localhost", "127.0.0.0/8, ::1", "127.0.0.1, [::1]"])
async def test_names_are_looked_up_by_the_system(allow: str) -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside:
        guard = Guard(allow=allow)
        assert (await guard.get(f"http://localhost:{outside.port}/")).content == b"x"
        await guard.close()


async def test_an_ipv6_address_is_reached() -> None:
    async with Outside.serving({"/": answer(b"x")}, host="::1") as outside:
        assert (await Guard(allow=outside.place).get(f"{outside.url}/")).content == b"x"


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::ffff:7f00:1]", "0"])
async def test_nobody_connects_to_what_is_not_on_the_list(host: str) -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside:
        guard = Guard(allow="127.0.0.2, wiki.intranet")
        reason = await refused(guard, f"http://{host}:{outside.port}/")
        await guard.close()
    assert (reason.reason, outside.connections) == ("address", 0)


async def test_a_name_with_one_address_that_is_refused_is_refused() -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside, Outside.serving(host="127.0.0.2") as inside:
        guard = Guard(allow=outside.place, resolve=Names(both_example=[["127.0.0.1", "127.0.0.2"]]))
        reason = await refused(guard, f"http://both.example:{outside.port}/")
    assert (reason.reason, outside.connections, inside.connections) == ("address", 0, 0)


async def test_the_address_behind_a_name_is_told_to_the_operator_and_not_to_the_caller() -> None:
    with capture_logs() as lines:
        reason = await refused(Guard(resolve=Names(wiki_intranet=[["10.0.0.5"]])), "http://wiki.intranet/")
    assert reason.detail == "'wiki.intranet' is not public; an operator can allow it with fetch_allow"
    told = {"host": "wiki.intranet", "port": 80, "address": "10.0.0.5", "kind": "private"}
    assert lines == [{"event": "address refused", "log_level": "warning", **told}]


@pytest.mark.parametrize("url", ["http://8.8.8.8:25/", "https://8.8.8.8:22/", "http://[2606:4700::1111]:1023/"])
def test_a_port_that_is_not_the_webs_is_refused(url: str) -> None:
    reason = run(refused(Guard(), url))
    assert reason.reason == "address"
    assert "is not the web's; an operator can allow it with fetch_allow" in reason.detail


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:secret@127.0.0.1/", "nonsense"])
def test_what_is_no_url_is_refused(url: str) -> None:
    assert run(refused(Guard(allow="127.0.0.1"), url)).reason == "url"


# Names that change --------------------------------------------------------------------------------------------------


async def test_a_name_that_changes_its_address_is_looked_up_once_and_reached_where_it_was_checked() -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside, Outside.serving(host="127.0.0.2") as inside:
        names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
        guard = Guard(allow="127.0.0.1", resolve=names)
        assert (await guard.get(f"http://rebinding.example:{outside.port}/")).content == b"x"
    assert (names.asked, inside.connections) == (1, 0)


async def test_a_name_that_changes_its_address_before_a_redirect_to_itself_is_refused() -> None:
    async with AsyncExitStack() as stack:
        outside = await stack.enter_async_context(Outside.serving({"/": redirect("/secret")}))
        inside = await stack.enter_async_context(Outside.serving({"/secret": answer(b"!")}, host="127.0.0.2"))
        names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
        reason = await refused(Guard(allow="127.0.0.1", resolve=names), f"http://rebinding.example:{outside.port}/")
    assert (reason.reason, names.asked, inside.connections) == ("address", 2, 0)


async def test_a_connection_to_an_address_that_was_not_checked_cannot_be_made() -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside:
        async with session_to((ip_address("127.0.0.2"),)) as session:
            with pytest.raises(aiohttp.ClientConnectorError, match="was not checked"):
                await session.get(outside.url)
        async with session_to((ip_address("127.0.0.1"),)) as session, session.get(outside.url) as response:
            assert await response.read() == b"x"
    assert outside.connections == 1


# Redirects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_what_is_not_on_the_list_is_not_followed(status: int) -> None:
    async with (
        Outside.serving(host="127.0.0.2") as inside,
        Outside.serving({"/": redirect(f"{inside.url}/secret", status)}) as outside,
    ):
        reason = await refused(Guard(allow="127.0.0.1"), f"{outside.url}/")
    assert (reason.reason, inside.connections) == ("address", 0)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://x@127.0.0.1/", "//[::1%25lo]/", "http:\\\\x"])
async def test_a_redirect_to_what_is_no_url_is_not_followed(location: str) -> None:
    async with Outside.serving({"/": redirect(location)}) as outside:
        assert (await refused(Guard(allow="127.0.0.1"), f"{outside.url}/")).reason == "url"


async def test_so_many_redirects_are_followed_and_no_more() -> None:
    acts = {f"/{left}": redirect(f"/{left - 1}") for left in range(1, MAX_REDIRECTS + 2)}
    async with Outside.serving({**acts, "/0": answer(b"x")}) as outside:
        guard = Guard(allow=outside.place)
        assert (await guard.get(f"{outside.url}/{MAX_REDIRECTS}")).content == b"x"
        reason = await refused(guard, f"{outside.url}/{MAX_REDIRECTS + 1}")
    assert (reason.reason, len(outside.requests)) == ("redirects", 2 * (MAX_REDIRECTS + 1))


async def test_what_may_be_a_secret_does_not_go_along_to_another_origin() -> None:
    headers = {"Authorization": "Bearer s", "X-Api-Key": "s", "Cookie": "s=s", "Accept": "text/markdown"}
    async with (
        Outside.serving({"/": answer(b"x")}) as other,
        Outside.serving({"/a": redirect("/b"), "/b": redirect(f"{other.url}/")}) as outside,
        Guard(allow="127.0.0.1").open("GET", f"{outside.url}/a", headers=headers) as reply,
    ):
        assert (reply.url, await reply.read()) == (f"{other.url}/", b"x")
    assert [outside.header("Authorization", request) for request in (0, 1)] == ["Bearer s", "Bearer s"]
    assert [other.header(name) for name in headers] == [None, None, None, "text/markdown"]


async def test_a_post_is_redirected_within_its_origin_with_its_body() -> None:
    async with (
        Outside.serving({"/mcp": redirect("/mcp/", 307), "/mcp/": answer(b"{}", 202)}) as outside,
        Guard(allow=outside.place).open("POST", f"{outside.url}/mcp", body=b"asked") as reply,
    ):
        assert (reply.status, await reply.read()) == (202, b"{}")
    assert [head.split(" ")[0] for head in outside.requests] == ["POST", "POST"]
    assert outside.bodies == [b"asked", b"asked"]


@pytest.mark.parametrize(("status", "origin"), [(303, ""), (302, ""), (307, "http://127.0.0.2:8080")])
async def test_a_post_is_not_redirected_elsewhere_nor_into_a_get(status: int, origin: str) -> None:
    async with Outside.serving({"/": redirect(f"{origin}/x", status)}) as outside:
        with pytest.raises(FetchError, match=r"^redirects: "):
            await Guard(allow="127.0.0.0/8").open("POST", f"{outside.url}/", body=b"secret").__aenter__()
    assert outside.connections == 1


# Size ---------------------------------------------------------------------------------------------------------------

LIMIT = 256 * 1024


def _chunk(size: int) -> bytes:
    return f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


async def test_a_file_of_the_largest_size_is_fetched_and_one_byte_more_is_not() -> None:
    acts = {"/fits": answer(b"x" * LIMIT), "/more": answer(b"x" * (LIMIT + 1))}
    async with Outside.serving(acts) as outside:
        guard = Guard(allow=outside.place, max_bytes=LIMIT)
        assert len((await guard.get(f"{outside.url}/fits")).content) == LIMIT
        reason = await refused(guard, f"{outside.url}/more")
    assert (reason.reason, reason.detail) == ("size", f"it has more than {LIMIT} bytes")


async def test_a_length_that_is_too_large_is_believed_before_anything_is_read() -> None:
    async with Outside.serving({"/": b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"}) as outside:
        assert (await refused(Guard(allow=outside.place), f"{outside.url}/")).reason == "size"


@pytest.mark.parametrize(
    "said",
    [(CHUNKED + b"\r\n", _chunk(60_000)), (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * 60_000)],
    ids=["in chunks", "without a length"],
)
async def test_a_file_that_does_not_end_is_left_at_the_limit(said: tuple[bytes, ...]) -> None:
    async with Outside.serving({"/": pieces(*said)}) as outside:
        reason = await refused(Guard(allow=outside.place, max_bytes=LIMIT), f"{outside.url}/")
        await outside.abandoned.wait()
    assert reason.reason == "size"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_small_file_that_grows_when_it_is_unpacked_is_left_at_the_limit(encoding: str) -> None:
    zeros = bytes(64 * 1024 * 1024)
    bomb = gzip.compress(zeros, 6) if encoding == "gzip" else zlib.compress(zeros, 6)
    assert len(bomb) < LIMIT

    async with Outside.serving({"/": answer(bomb, Content_Encoding=encoding)}) as outside:
        guard = Guard(allow=outside.place, max_bytes=LIMIT)
        async with guard.open("GET", f"{outside.url}/") as reply:
            tracemalloc.start()
            with pytest.raises(FetchError, match=r"^size: "):
                await reply.read()
            assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
            tracemalloc.stop()


async def test_a_file_that_was_packed_on_the_way_is_unpacked() -> None:
    async with Outside.serving({"/": answer(gzip.compress(b"x" * 100_000), Content_Encoding="gzip")}) as outside:
        assert (await Guard(allow=outside.place).get(f"{outside.url}/")).content == b"x" * 100_000


@pytest.mark.parametrize(
    "said",
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: of them\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096),
        (b"HTTP/1.1 ", b"2" * 4096),
    ],
    ids=["headers", "one header", "status"],
)
async def test_a_head_that_does_not_end_is_left(said: tuple[bytes, ...]) -> None:
    async with Outside.serving({"/": pieces(*said)}) as outside:
        assert (await refused(Guard(allow=outside.place), f"{outside.url}/")).reason == "connection"
        await outside.abandoned.wait()


# Time ---------------------------------------------------------------------------------------------------------------

SHORT = 0.2


@pytest.mark.parametrize(
    "act",
    [
        None,
        pieces(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x", pause=0.01),
        pieces(b"HTTP/1.1 200 OK\r\n", b"X", pause=0.01),
        pieces(b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.01),
    ],
    ids=["no answer", "a byte now and then", "a header's byte now and then", "hints"],
)
async def test_a_file_that_comes_slowly_is_left_when_its_time_is_over(act: Act) -> None:
    async with Outside.serving({"/": act}) as outside:
        assert (await refused(Guard(allow=outside.place, timeout_s=SHORT), f"{outside.url}/")).reason == "time"
        await outside.abandoned.wait()


async def test_redirects_and_look_ups_use_up_the_same_time() -> None:
    asked = 0

    async def resolve(name: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(SHORT / 2 if asked < 3 else 60)
        return ["127.0.0.1"]

    async with Outside.serving({"/": redirect("/")}) as outside:
        guard = Guard(allow="slow.example", timeout_s=SHORT, resolve=resolve)
        reason = await refused(guard, f"http://slow.example:{outside.port}/")
    assert reason.reason == "time"
    assert asked <= 3


async def test_so_many_are_fetched_at_a_time_and_the_others_wait() -> None:
    go, full = asyncio.Event(), asyncio.Event()
    held = 0

    async def hold(writer: Writer) -> None:
        nonlocal held
        held += 1
        if held == MAX_CONCURRENT:
            full.set()
        await go.wait()
        writer.write(answer(b"x"))
        await writer.drain()

    async with Outside.serving({"/": hold}) as outside:
        guard = Guard(allow=outside.place)
        fetching = [asyncio.create_task(guard.get(f"{outside.url}/")) for _ in range(MAX_CONCURRENT + 3)]
        await full.wait()
        assert outside.connections == MAX_CONCURRENT
        impatient = Guard(allow=outside.place, timeout_s=SHORT)
        impatient._slots = guard._slots  # pyright: ignore[reportPrivateUsage]  the same ones
        assert (await refused(impatient, f"{outside.url}/")).detail == "too much else is being fetched"
        go.set()
        assert [one.content for one in await asyncio.gather(*fetching)] == [b"x"] * (MAX_CONCURRENT + 3)


async def test_who_stops_waiting_closes_the_connection() -> None:
    async with Outside.serving({"/": None}) as outside:
        fetching = asyncio.create_task(Guard(allow=outside.place).get(f"{outside.url}/"))
        await outside.asked.wait()
        fetching.cancel()
        await asyncio.wait([fetching])
        assert fetching.cancelled()
        await outside.abandoned.wait()


async def test_closing_ends_what_is_under_way() -> None:
    async with Outside.serving({"/": None}) as outside:
        guard = Guard(allow=outside.place)
        fetching = asyncio.create_task(refused(guard, f"{outside.url}/"))
        await outside.asked.wait()
        await guard.close()
        assert (await fetching).reason == "connection"


# What goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 500, 304, 300])
async def test_an_answer_that_is_no_success_says_its_status(status: int) -> None:
    async with Outside.serving({"/": answer(status=status)}) as outside:
        reason = await refused(Guard(allow=outside.place), f"{outside.url}/")
    assert (reason.reason, reason.detail) == ("status", f"'127.0.0.1' answers with status {status}")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        CHUNKED + b"\r\n5\r\nshort",
        CHUNKED + b"\r\nnonsense\r\n",
        answer(b"not packed", Content_Encoding="gzip"),
        answer(b"cannot be unpacked", Content_Encoding="br"),
    ],
    ids=["nothing", "mail", "cut", "cut chunks", "no chunks", "no gzip", "brotli"],
)
async def test_an_answer_that_cannot_be_read_is_none(said: bytes) -> None:
    async with Outside.serving({"/": said}) as outside:
        assert (await refused(Guard(allow=outside.place), f"{outside.url}/")).reason == "connection"


async def test_nobody_there_is_no_connection() -> None:
    async with Outside.serving() as outside:
        pass
    reason = await refused(Guard(allow=outside.place), f"{outside.url}/")
    assert (reason.reason, reason.detail) == ("connection", "no connection to '127.0.0.1'")


async def test_a_second_address_is_tried_when_the_first_does_not_answer() -> None:
    async with Outside.serving({"/": answer(b"x")}) as outside:
        guard = Guard(allow="two.example", resolve=Names(two_example=[["127.0.0.3", "127.0.0.1"]]))
        assert (await guard.get(f"http://two.example:{outside.port}/")).content == b"x"


def test_a_name_that_nobody_knows_says_so() -> None:
    async def away(name: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert run(refused(Guard(resolve=Names()), "http://no.example/")).reason == "name"
    assert run(refused(Guard(resolve=Names(no_example=[[]])), "http://no.example/")).reason == "name"
    assert "at the moment" in run(refused(Guard(resolve=away), "http://no.example/")).detail


def test_settings_are_read_without_loading_a_client() -> None:
    line = "import sys, palaver.config; print(sorted({'aiohttp', 'palaver.tools.guard', 'ssl'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", line], env=environment, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"
