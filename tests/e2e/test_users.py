"""`python app.py users` beside the running service, as an operator types it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.accounts.mail_server import running_mail_server
from tests.bench.account import PASSWORD, User, ask
from tests.e2e.test_start_and_stop import data, run, started

pytestmark = pytest.mark.timeout(120)


__all__ = ["data"]


def users(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("users", *arguments, DATA_DIR=str(data))


def rows(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done
    return [line.split("\t") for line in done.stdout.splitlines()]


def email_of(user: User) -> str:
    return str(user.call("GET", "/info")["email"])


def sign_in(user: User, email: str) -> tuple[int, object]:
    return ask(user.port, "POST", "/login", {"email": email, "password": PASSWORD})


def test_an_operator_lists_limits_switches_off_and_deletes_users_of_a_running_service(data: Path) -> None:
    with started(data) as server:
        first, second = User.register(server.port), User.register(server.port)
        first_email, second_email = email_of(first), email_of(second)
        file_id = first.store_file(os.urandom(1000), 2)

        head, *listed = rows(users(data))
        assert head == ["e-mail", "username", "state", "bytes used", "quota", "files"]
        name = first_email.partition("@")[0]
        assert [first_email, name, "active", "2000", "default", "1"] in listed
        assert [row[0] for row in listed] == sorted([first_email, second_email])
        assert rows(users(data, "list")) == [head, *listed]

        fields = {"size": 5000, "encrypted_metadata": "A", "mime_type": "", "folder_id": "root"}
        fields["encrypted_file_key"] = "A"
        (limited,) = rows(users(data, "quota", first_email.upper(), "4000"))
        assert limited[4] == "4000"
        assert first.call("GET", "/drive/get_drive_info")["storage_limit_bytes"] == 4000
        assert ask(server.port, "POST", "/drive/initialize_file", fields, first.token)[0] == 507
        assert rows(users(data, "quota", first_email, "default"))[0][4] == "default"
        open_upload = first.initialize(5000)

        (off,) = rows(users(data, "deactivate", first_email))
        assert off[2] == "inactive"
        unknown = sign_in(second, "nobody@example.org")
        assert sign_in(first, first_email) == unknown
        assert unknown[0] == 401
        chunk = f"/drive/upload_chunk_binary?file_id={open_upload}&index=0&iv=AAAA"
        for method, path, body in (
            ("GET", "/info", None),
            ("GET", f"/drive/download/{file_id}", None),
            ("GET", f"/drive/file/{file_id}", None),
            ("POST", chunk, b"x" * 100),
        ):
            assert ask(server.port, method, path, body, first.token)[0] == 401, path
        assert rows(users(data, "activate", first_email))[0][2] == "active"
        assert ask(server.port, "GET", "/info", None, first.token)[0] == 401, "what was open then stays closed"
        assert sign_in(first, first_email)[0] == 200

        not_meant = users(data, "delete", first_email)
        assert not_meant.returncode == 2
        assert "--yes" in not_meant.stdout
        assert sign_in(first, first_email)[0] == 200
        objects = [path for path in (data / "store").rglob(f"{file_id}.*") if path.is_file()]
        assert len(objects) == 2
        done = users(data, "delete", first_email, "--yes")
        assert (done.returncode, done.stdout.startswith(f"deleted: {first_email}\t")) == (0, True), done
        assert not any(path.exists() for path in objects)
        assert run("scrub", DATA_DIR=str(data)).returncode == 0
        assert sign_in(first, first_email) == unknown
        assert [row[0] for row in rows(users(data))[1:]] == [second_email]
        assert second.call("GET", "/info")["email"] == second_email
        assert server.alive


def test_what_cannot_be_done_is_said_without_a_traceback(data: Path) -> None:
    with started(data) as server:
        email = email_of(User.register(server.port))
        for arguments, code in (
            (("deactivate", "nobody@example.org"), 1),
            (("delete", "nobody@example.org", "--yes"), 1),
            (("quota", email, "-1"), 2),
            (("quota", email, "10G"), 2),
            (("quota", email), 2),
            (("rename", email), 2),
        ):
            done = users(data, *arguments)
            assert done.returncode == code, done
            assert "Traceback" not in done.stderr
            assert done.stderr.strip()


def test_without_a_running_service_the_database_is_started_for_as_long_as_it_takes(data: Path) -> None:
    with started(data) as server:
        email = email_of(User.register(server.port))
    assert [row[0] for row in rows(users(data))[1:]] == [email]


def test_somebody_registers_with_a_code_from_their_mail_and_with_one_from_the_log(data: Path) -> None:
    def register(port: int, code: str, email: str) -> str:
        token = ask(port, "POST", "/api/register/verify-otp", {"email": email, "otp": code})
        assert token[0] == 200, token
        fields = dict.fromkeys(("encrypted_private_key", "public_key", "private_key_salt", "iv"), "AAAA")
        fields |= {"email": email, "username": secrets.token_hex(4), "password": "Correct-Horse-42"}
        fields |= {"encrypted_record_key": "AAAA", "temp_token": str(token[1])}
        status, answer = ask(port, "POST", "/api/register/finalize", fields)
        assert status == 200, answer
        return str(answer["user_id"])

    with running_mail_server() as box:
        url = f"smtp://127.0.0.1:{box.port}?starttls=off"
        with started(data, SMTP_URL=url, MAIL_FROM="drive@gauzian.test") as server:
            assert ask(server.port, "POST", "/api/register/send-otp", {"email": "ada@example.org"}) == (
                200,
                "Code sent",
            )
            (envelope,) = box.envelopes
            assert envelope.rcpt_tos == ["ada@example.org"]
            code = str(box.last()["Subject"]).split()[0]
            register(server.port, code, "ada@example.org")
            box.refuses = "550 no such mailbox"
            status, answer = ask(server.port, "POST", "/api/register/send-otp", {"email": "eve@example.org"})
            assert (status, answer["code"]) == (400, "undeliverable")
        assert code not in (log := server.log.read_text())
        assert "example.org" not in log

    with started(data, LOG_FORMAT="json") as server:
        assert ask(server.port, "POST", "/register/send-otp", {"email": "eve@example.org"})[0] == 200
        server.process.terminate()
        server.process.wait(30)
        lines = [json.loads(line)["msg"] for line in server.log.read_text().splitlines() if line.startswith("{")]
        assert any(line.startswith("SMTP_URL is not set") for line in lines)
        (told,) = [line for line in lines if line.startswith("registration code for eve@example.org")]
    with started(data) as server:
        register(server.port, told.split()[-1], "eve@example.org")
