"""The choice of the dashboard that a command uses."""

import pytest

from raygenome.cluster.address import find_dashboard
from raygenome.errors import UsageError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("typed", "variables", "url"),
    [
        ("https://h/", {}, "https://h"),
        ("h:8265", {}, "http://h:8265"),
        ("h:6379", {}, "http://h:8265"),
        ("[fd00::5]:6379", {}, "http://[fd00::5]:8265"),
        ("http://h:1", {"RAY_ADDRESS": "http://o:1"}, "http://h:1"),
        (None, {}, None),
        (None, {"RAY_ADDRESS": "http://o:1"}, "http://o:1"),
        (None, {"RAY_ADDRESS": "o:6379"}, "http://o:8265"),
        (None, {"RAY_ADDRESS": "o:1", "RAY_API_SERVER_ADDRESS": "http://p:2/"}, "http://p:2"),
        (None, {"RAY_ADDRESS": "auto"}, None),
        ("", {"RAY_ADDRESS": "local"}, None),
    ],
)
def test_the_dashboard_that_is_named(
    typed: str | None,
    variables: dict[str, str],
    url: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_dashboard(typed) == url


@pytest.mark.parametrize("address", ["ray://h:10001", "http://", "http://h:0", "http://h:x", "[::"])
def test_what_is_not_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--address is .*, which is not the address of a Ray"):
        find_dashboard(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError, match=r"RAY_ADDRESS is .*, which is not the address"):
        find_dashboard(None)
