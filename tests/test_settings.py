"""Settings: read once, all problems at once, never a silent fall-back; README's table is this module's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gauzian import budget
from gauzian.settings import Settings, SettingsError, misspelt
from gauzian.values import MailServer

ROOT = Path(__file__).parent.parent

BAD = [
    ("MAX_CONCURRENT_UPLOADS", "many", "a whole number from 1 to 10000, or auto"),
    ("MAX_CONCURRENT_UPLOADS", "0", "a whole number from 1 to 10000, or auto"),
    ("MAX_CHUNK_SIZE", "-5", "a whole number"),
    ("MAX_CHUNK_SIZE", "10MB", "a whole number"),
    ("UPLOADS_BUSY_STATUS", "404", "400, 429 or 503"),
    ("UPLOADS_BUSY_STATUS", "200", "400, 429 or 503"),
    ("UPLOAD_IDLE_SECONDS", "nan", "seconds from"),
    ("UPLOAD_TTL_HOURS", "nan", "hours from"),
    ("COOKIE_SECURE", "perhaps", "true or false"),
    ("FINALIZE_CHECK", "off", "one of explained, contiguous"),
    ("DATABASE_URL", "mysql://x/y", "a URL beginning with postgresql://"),
    ("DATABASE_URL", "postgresql://[::1/x", "a URL beginning with postgresql://"),
    ("S3_ENDPOINT", "minio:9000", "http://host[:port]"),
    ("S3_ENDPOINT", "http://minio/bucket", "http://host[:port]"),
    ("S3_ENDPOINT", "http://minio:99999", "http://host[:port]"),
    ("S3_ENDPOINT", "http://[::1", "http://host[:port]"),
    ("S3_BUCKET", "my bucket", "a bucket's name"),
    ("TRUSTED_PROXIES", "10.0.0.0/99", "addresses or networks"),
    ("CORS_ORIGINS", "drive.example.org", "origins"),
    ("CORS_ORIGINS", "https://[::1", "origins"),
    ("CORS_ORIGINS", "https://drive.example.org?x=1", "origins"),
    ("SMTP_URL", "mail.example.org", "smtp://"),
    ("SMTP_URL", "smtp://mail.example.org:x", "smtp://"),
    ("SMTP_URL", "smtps://mail.example.org?starttls=off", "smtp://"),
    ("MAIL_FROM", "GAUZIAN", "an e-mail address"),
    ("PORT", "99999", "a whole number from 0 to 65535"),
]


def test_nothing_set_means_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.max_concurrent_uploads, settings.max_chunk_size, settings.port) == (50, 10_485_760, 8080)


@pytest.mark.parametrize(("name", "text", "takes"), BAD)
def test_a_bad_value_names_the_variable_what_it_held_and_what_it_takes(name: str, text: str, takes: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: text})
    problem = next(problem for problem in caught.value.problems if name in problem)
    assert takes in problem
    assert text in problem or name in ("DATABASE_URL", "SMTP_URL")


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: text for name, text, _ in BAD})
    assert {name for name, _, _ in BAD} <= {problem.split()[0] for problem in caught.value.problems}


def test_a_secret_is_shown_neither_in_a_problem_nor_in_the_table() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"DATABASE_URL": "mysql://root:hunter22@db/x"})
    assert "hunter22" not in str(caught.value)
    shown = Settings.from_env(
        {"S3_ENDPOINT": "http://s3", "S3_ACCESS_KEY": "hunter22", "S3_SECRET_KEY": "hunter33"}
    ).rows()
    assert "hunter" not in str(shown)


def test_half_an_s3_configuration_stops_the_start() -> None:
    for environ in ({"S3_ENDPOINT": "http://s3"}, {"S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "b"}):
        with pytest.raises(SettingsError):
            Settings.from_env(environ)


def test_a_mail_server_needs_a_sender_and_its_password_is_unquoted_and_never_shown() -> None:
    url = "smtp://drive%40example.org:hunter%2F22@mail.example.org"
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"SMTP_URL": url})
    assert "MAIL_FROM" in str(caught.value)
    settings = Settings.from_env({"SMTP_URL": url, "MAIL_FROM": "drive@example.org"})
    assert settings.smtp_url == MailServer("mail.example.org", 587, "starttls", "drive@example.org", "hunter/22")
    assert "hunter" not in str(settings.rows()) + repr(settings)


@pytest.mark.parametrize(
    ("url", "port", "encryption"),
    [
        ("smtp://mail", 587, "starttls"),
        ("smtp://[::1]:25?starttls=off", 25, "none"),
        ("smtps://mail", 465, "tls"),
        ("smtps://mail:1465/", 1465, "tls"),
    ],
)
def test_how_a_mail_server_is_spoken_to_follows_from_its_url(url: str, port: int, encryption: str) -> None:
    server = Settings.from_env({"SMTP_URL": url, "MAIL_FROM": "drive@example.org"}).smtp_url
    assert server is not None
    assert (server.port, server.encryption, server.user) == (port, encryption, None)


def test_a_bad_endpoint_is_one_problem_and_not_two() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"S3_ENDPOINT": "minio:9000", "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "b"})
    assert len(caught.value.problems) == 1


def test_aliases_and_empty_variables() -> None:
    environ = {
        "S3_ENDPOINT": "http://s3",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "QUOTA_BYTES": " ",
    }
    settings = Settings.from_env(environ)
    assert (settings.s3_access_key, settings.s3_secret_key, settings.quota_bytes) == ("key", "secret", None)


def test_a_misspelt_variable_is_noticed_and_foreign_ones_are_not() -> None:
    assert misspelt({"MAX_CONCURENT_UPLOADS": "5"}) == [
        "MAX_CONCURENT_UPLOADS is no setting; did you mean MAX_CONCURRENT_UPLOADS?"
    ]
    assert (
        misspelt({"PATH": "/bin", "HOME": "/", "GAUZIAN_SERVICE_HOST": "10.0.0.1", "LANG": "C", "AWS_REGION": "x"})
        == []
    )


def test_readme_prints_the_table_of_this_module() -> None:
    readme = (ROOT / "README.md").read_text()
    printed = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", readme, re.DOTALL)
    assert printed is not None
    assert printed[1] == Settings.table(), "run: python -m gauzian.settings"


@pytest.mark.parametrize(("limit", "places"), [(None, 50), (64, 4), (227, 56), (256, 205), (2048, 1000)])
def test_auto_takes_as_many_places_as_the_limit_carries(limit: int | None, places: int) -> None:
    size = limit and limit * budget.MIB
    found = budget.places_within(size, downloads=100, connections=2000, password_checks=2)
    assert found == pytest.approx(places, rel=0.02)
    load = budget.Load(found, 100, 2000, 2)
    assert (budget.misfit(load, size) is None) == (found > 4)


def test_settings_that_do_not_fit_are_told_with_the_numbers() -> None:
    words = budget.misfit(budget.Load(50, 100, 2000, 2), 128 * budget.MIB)
    assert words is not None
    assert "226 MiB: 80 at rest, 24 for shared buffers, 10 for 50 uploads, 25 for 100 downloads" in words
    assert "47 for 2000 connections, 40 for 2 password checks; the memory limit is 128 MiB" in words


def test_connections_cost_more_where_they_are_encrypted() -> None:
    plain, encrypted = (budget.Load(50, 100, 1024, 2, tls=tls) for tls in (False, True))
    assert budget.ceiling(encrypted) - budget.ceiling(plain) == 80 * budget.MIB
    few, many = (
        budget.places_within(256 * budget.MIB, downloads=100, connections=1000, password_checks=2, tls=tls)
        for tls in (True, False)
    )
    assert few < many


def test_readme_prints_the_sizing_table_of_the_budget() -> None:
    readme = (ROOT / "README.md").read_text()
    printed = re.search(r"<!-- sizing -->\n(.*?)\n<!-- /sizing -->", readme, re.DOTALL)
    assert printed is not None
    assert printed[1] == budget.table(), "run: python -m gauzian.budget"


CGROUPS: dict[str, tuple[dict[str, str], str, int | None]] = {
    "none": ({}, "", None),
    "no limit": ({"memory.max": "max\n"}, "0::/\n", None),
    "a container's": ({"memory.max": "268435456\n"}, "0::/\n", 268435456),
    "a service's": ({"system.slice/gauzian.service/memory.max": "1000\n"}, "0::/system.slice/gauzian.service\n", 1000),
    "a tighter one above": (
        {"system.slice/memory.max": "900\n", "system.slice/gauzian.service/memory.max": "1000\n"},
        "0::/system.slice/gauzian.service\n",
        900,
    ),
    "another service's": (
        {"system.slice/other.service/memory.max": "900\n"},
        "0::/system.slice/gauzian.service\n",
        None,
    ),
    "version 1": ({"memory/memory.limit_in_bytes": "5000\n"}, "4:memory:/\n3:cpu,cpuacct:/x\n", 5000),
    "version 1, nested": ({"memory/a/b/memory.limit_in_bytes": "5000\n"}, "4:memory:/a/b\n", 5000),
    "version 1, no limit": ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", None),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_the_memory_limit_is_the_tightest_of_our_cgroups(tmp_path: Path, name: str) -> None:
    files, own, limit = CGROUPS[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "own").write_text(own)
    assert budget.memory_limit(str(tmp_path), str(tmp_path / "own")) == limit


@pytest.mark.parametrize(("given", "wanted"), [("TLS_CERT", "TLS_KEY"), ("TLS_KEY", "TLS_CERT")])
def test_a_certificate_without_its_key_or_a_key_without_its_certificate_stops_the_start(
    given: str, wanted: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({given: "/somewhere.pem"})
    assert caught.value.problems == [f"{given} is set, so {wanted} must be too (it may name the same file)"]
