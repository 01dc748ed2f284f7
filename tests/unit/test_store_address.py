"""A store's URL: what we read ourselves is what redis-py would have read, and redis-py reads the
rest.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corral.errors import ConfigurationError
from corral.store.redis_py import read_url
from corral.store.wire import PLAIN_URL, Address

WORDS = st.text(string.ascii_letters + string.digits + "._~-", max_size=8)
ESCAPED = st.text(max_size=6).map(
    lambda text: "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "ignore"))
)
LOGIN = st.one_of(WORDS, ESCAPED)
TCP = st.builds(
    "redis://{}{}{}{}".format,
    st.one_of(
        st.just(""),
        LOGIN.map("{}@".format),
        st.tuples(LOGIN, LOGIN).map(lambda login: f"{login[0]}:{login[1]}@"),
    ),
    st.one_of(
        st.sampled_from(["localhost", "127.0.0.1", "Store_1.example", "::1", "[::1]", ""]), WORDS
    ),
    st.one_of(st.just(""), st.integers(0, 99_999).map(":{}".format)),
    st.one_of(
        st.just(""), st.just("/"), st.integers(0, 10**10).map("/{}".format), WORDS.map("/{}".format)
    ),
)
SOCKET = st.one_of(WORDS, ESCAPED).map("unix:///run/{}".format)


@given(st.one_of(TCP, SOCKET))
@example("redis://localhost")
@example("redis://ada:p%40ss@localhost:6379/3")
@example("redis://ada@localhost:0")
@example("redis://ada:@localhost:60000/00")
@example("unix:///run/a%20b/store.sock")
def test_what_we_read_is_what_redis_py_reads(url: str) -> None:
    if PLAIN_URL.fullmatch(url):
        assert Address.of(url) == read_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "redis://127.0.0.1:60999",
        "redis://:s3cret@store.example",
        "redis://ada:p%40ss@store:6380/15",
        "unix:///tmp/corral-x/store.sock",
    ],
)
def test_an_ordinary_url_is_read_without_redis_py(url: str) -> None:
    assert PLAIN_URL.fullmatch(url)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://store",
        "redis://store?db=1",
        "redis://[::1]:6379",
        "redis://store:65535",
        "unix://ada@/s",
        "redis:///1",
    ],
)
def test_what_is_less_ordinary_is_left_to_redis_py(url: str) -> None:
    assert not PLAIN_URL.fullmatch(url)
    assert Address.of(url).database in {0, 1}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://store/abc", "no number of a database"),
        ("redis://store/0abc", "no number of a database"),
        ("redis://store/1/2", "no number of a database"),
        ("redis://store//1", "no number of a database"),
        ("redis://store/-1", "no number of a database"),
        ("rediss://store/prod", "no number of a database"),
        ("redis://store/0?db=x", "Invalid value for 'db'"),
        ("redis://store/0?soket_timeout=5", "redis-py has no option 'soket_timeout'"),
        ("redis://store/0?soket_timeout", "its option 'soket_timeout' has no value"),
        ("redis://store/0?soket_timeout=", "its option 'soket_timeout' has no value"),
        ("rediss://store/0?ssl_cert_req=none", "redis-py has no option 'ssl_cert_req'"),
        ("redis://store/0?ssl_cert_reqs=none", "redis-py has no option 'ssl_cert_reqs'"),
        ("rediss://store/0?ssl_cert_reqs=nil", "Invalid SSL Certificate Requirements Flag"),
        ("redis://store/0?DB=1", "redis-py has no option 'DB'"),
        ("redis://store/0?db=1&db=2", "its option 'db' is there twice"),
        ("unix:///run/store.sock?databse=1", "redis-py has no option 'databse'"),
        ("redis://store/0#1", "it has a '#'"),
        ("redis://:s3c#ret@store/0", "it has a '#'"),
    ],
)
def test_what_would_mean_something_else_than_it_says_is_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a store's address: ") as refused:
        Address.of(url)
    assert why in str(refused.value)
    assert "s3c" not in str(refused.value)
    assert "redis://host:6379/0" in str(refused.value.hint)
