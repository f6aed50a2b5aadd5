"""The small decisions: when to try again, which proxy, what a sweep takes, where a name leads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_agent.errors import ImageError, Interrupted
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.limits import Budget, Limits
from moorage_agent.images.patience import Patience, Tries
from moorage_agent.images.progress import Meter
from moorage_agent.images.proxy import proxy_for, proxy_headers
from moorage_agent.images.record import Record
from moorage_agent.images.sweep import Held, unwanted
from moorage_agent.images.transport import Transient
from moorage_agent.images.tree import cleaned
from moorage_agent.protocol import ImageConfig

LOST = Transient("RegistryUnreachable", "lost")


# --- patience


@pytest.mark.parametrize(
    ("failed", "asked", "wait"),
    [(1, None, 2), (2, None, 4), (4, None, 16), (5, None, None), (1, 7, 7), (1, 0, 0), (1, 61, None), (5, 1, None)],
)
def test_waits_double_unless_the_server_says_when(failed: int, asked: float | None, wait: float | None) -> None:
    assert Patience().wait_s(failed, Transient("RateLimited", "", asked)) == wait


def test_waits_do_not_grow_forever() -> None:
    assert Patience(tries=100).wait_s(50, LOST) == 60


def test_progress_begins_the_count_anew() -> None:
    tries = Tries(Patience(tries=3, first_s=0), Cancellation())
    for _ in range(20):
        tries.again(LOST, progressed=True)
    tries.again(LOST)
    with pytest.raises(ImageError, match="3 tries") as gave_up:
        tries.again(LOST)
    assert gave_up.value.retry_after_s == 30


def test_a_rate_limit_is_respected_after_giving_up() -> None:
    with pytest.raises(ImageError) as gave_up:
        Tries(Patience(), Cancellation()).again(Transient("RateLimited", "429", 3600))
    assert (gave_up.value.code, gave_up.value.retry_after_s) == ("RateLimited", 3600)


def test_cancelling_ends_a_wait() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Interrupted):
        Tries(Patience(first_s=600), cancellation).again(LOST)
    with pytest.raises(Interrupted), cancellation.breaking(lambda: None):
        pytest.fail("not reached")


def test_cancelling_calls_what_breaks_the_current_wait_only() -> None:
    cancellation, called = Cancellation(), []
    with cancellation.breaking(lambda: called.append("over")):
        pass
    with cancellation.breaking(lambda: called.append("current")):
        cancellation.cancel()
    assert called == ["current"]


# --- proxies


@pytest.mark.parametrize(
    ("scheme", "host", "environ", "expected"),
    [
        ("https", "r.example", {}, None),
        ("https", "r.example", {"HTTPS_PROXY": "http://proxy:8080"}, "proxy"),
        ("https", "r.example", {"http_proxy": "http://proxy:8080"}, None),
        ("http", "r.example", {"http_proxy": "proxy:8080"}, "proxy"),
        ("http", "r.example", {"ALL_PROXY": "http://proxy"}, "proxy"),
        ("https", "r.example", {"https_proxy": "http://proxy", "no_proxy": "example"}, None),
        ("https", "r.example", {"https_proxy": "http://proxy", "no_proxy": "a, .example"}, None),
        ("https", "r.example", {"https_proxy": "http://proxy", "NO_PROXY": "*"}, None),
        ("https", "rexample", {"https_proxy": "http://proxy", "no_proxy": "example"}, "proxy"),
        ("https", "10.1.2.3", {"https_proxy": "http://proxy", "no_proxy": "10.0.0.0/8"}, None),
        ("https", "11.1.2.3", {"https_proxy": "http://proxy", "no_proxy": "10.0.0.0/8"}, "proxy"),
        ("https", "fd00::1", {"https_proxy": "http://proxy", "no_proxy": "fd00::/8"}, None),
        ("https", "r.example", {"https_proxy": " "}, None),
    ],
)
def test_a_proxy_is_chosen_as_curl_does(scheme: str, host: str, environ: dict[str, str], expected: str | None) -> None:
    proxy = proxy_for(scheme, host, environ)
    assert (proxy.hostname if proxy else None) == expected


def test_a_proxy_may_want_a_password() -> None:
    proxy = proxy_for("http", "r.example", {"http_proxy": "http://us%40er:p%3Aw@proxy:3128"})
    assert proxy is not None
    assert proxy_headers(proxy) == {"Proxy-Authorization": "Basic dXNAZXI6cDp3"}


# --- sweeping


def record(digest: str, *layers: str) -> Record:
    return Record(digest, "linux/amd64", ImageConfig(), layers, 0)


@pytest.mark.parametrize(
    ("keep", "leased", "images", "layers"),
    [
        ({"a", "b"}, set(), (), ("orphan",)),
        ({"a"}, set(), ("b",), ("only-b", "orphan")),
        (set(), set(), ("a", "b"), ("base", "only-a", "only-b", "orphan")),
        (set(), {"b"}, ("a",), ("only-a", "orphan")),
        (set(), {"orphan", "c"}, ("a", "b"), ("base", "only-a", "only-b")),
        ({"unknown"}, {"base"}, ("a", "b"), ("only-a", "only-b", "orphan")),
    ],
)
def test_a_sweep_takes_what_nobody_reaches(keep: set[str], leased: set[str], images: tuple[str, ...], layers: tuple[str, ...]) -> None:
    held = Held([record("a", "only-a", "base"), record("b", "only-b", "base")], ["base", "only-a", "only-b", "orphan"], leased)
    assert unwanted(held, keep) == (images, layers)


@pytest.mark.parametrize(
    ("keep", "leased", "layers"), [({"b"}, set(), ()), (set(), {"b"}, ()), ({"a"}, set(), ("unread",)), (set(), set(), ("base", "unread"))]
)
def test_no_layer_goes_while_it_is_unknown_whose_it_is(keep: set[str], leased: set[str], layers: tuple[str, ...]) -> None:
    held = Held([record("a", "base")], ["base", "unread"], leased, unread=["b"])
    assert unwanted(held, keep) == ((() if "a" in keep else ("a",)), layers)


# --- names


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b", "a/b"),
        ("./a//b/", "a/b"),
        ("/a", "a"),
        ("a/../b", "b"),
        ("a/./b/../c", "a/c"),
        ("./", ""),
        ("/", ""),
        ("", ""),
        ("...", "..."),
    ],
)
def test_a_name_leads_to_a_path_below_the_root(name: str, path: str) -> None:
    assert cleaned(name.encode()) == path.encode()


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/..", "/a/../../etc/passwd", "x" * 5000, "a/" * 300])
def test_a_name_that_leads_outside_or_too_far_is_refused(name: str) -> None:
    with pytest.raises(ImageError):
        cleaned(name.encode())


@given(st.text("ab./", max_size=40))
def test_no_name_leads_outside(name: str) -> None:
    try:
        path = cleaned(name.encode())
    except ImageError:
        return
    assert not {b".", b".."} & set(path.split(b"/"))
    assert not path.startswith(b"/")


# --- budgets and progress


def test_a_budget_is_shared_and_ends() -> None:
    budget = Budget(Limits(unpacked=1000, entries=3, reserve=0, reserve_inodes=0), lambda: (1 << 40, 1 << 20))
    budget.spend(900, entries=3)
    with pytest.raises(ImageError, match="unpacks to more"):
        budget.spend(101)
    with pytest.raises(ImageError, match="more than 3 files"):
        Budget(Limits(entries=3), lambda: (1 << 40, 1 << 20)).spend(0, entries=4)


@pytest.mark.parametrize(("free", "why"), [((100, 1 << 20), "MiB are free"), ((1 << 40, 10), "inodes are free")])
def test_a_full_disk_is_noticed_before_it_is_full(free: tuple[int, int], why: str) -> None:
    with pytest.raises(ImageError, match=why) as refused:
        Budget(Limits(), lambda: free).spend(1)
    assert (refused.value.code, refused.value.retry_after_s) == ("DiskFull", 60)


def test_progress_never_exceeds_the_total_and_ends_with_it() -> None:
    told: list[tuple[int, int]] = []
    meter = Meter(100, lambda done, total: told.append((done, total)), before=50)
    for _ in range(1000):
        meter.add(1)
    meter.end()
    assert told[0] == (51, 150)
    assert told[-1] == (150, 150)
    assert len(told) < 100
