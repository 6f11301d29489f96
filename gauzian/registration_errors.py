"""How registration with a code says no; everything else that is refused stands in errors.py."""

from __future__ import annotations

from gauzian.errors import ApiError


class Undeliverable(ApiError):
    status, code, text = 400, "undeliverable", "No mail can be sent to this address"


class WrongCode(ApiError):
    status, code, text = 401, "wrong_code", "The code is wrong or has expired"


class NotProved(ApiError):
    """A registration without the token that the right code was exchanged for."""

    status, code, text = 401, "email_not_proved", "The e-mail address was not verified, or too long ago"


class MailDown(ApiError):
    status, code, text, retry_after = 503, "mail_unavailable", "No mail can be sent now, please retry", 30
