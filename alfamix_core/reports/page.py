"""A template and its values become one HTML file that needs no network."""

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_SIGNATURES = ((b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))


def render_page(template: str, **values: object) -> str:
    """Return the filled template, including its stylesheet and script.

    The page's content security policy forbids all requests and all scripts except its own (by hash), so that even a
    flaw in the escaping could not reach the network. Inline styles stay allowed, because bars have their length as one.
    """
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_digest=digest,
            **values,
        )
    )


def data_uri(data: bytes | None) -> str:
    """Return a PNG, JPEG or WebP file as a data URI; empty for no data or another format."""
    for signature, kind in _SIGNATURES:
        if data is not None and data.startswith(signature):
            return f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return ""


def percent(share: float | None) -> str:
    """Return 0.8725 as ``87.2%``; a dash for None."""
    return "–" if share is None else f"{share:.1%}"


def duration(seconds: float) -> str:
    """Return seconds as ``8.4 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: int) -> str:
    """Return a number of bytes in the largest decimal unit in which it is at least 1."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def number(value: float) -> str:
    """Return a whole number with thousands separators, any other number with four significant digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def words(name: str) -> str:
    """Return the name of a field as words: ``macro_f1`` is ``macro f1``."""
    return name.replace("_", " ")


def signed(difference: float) -> str:
    """Return a difference of two shares in hundredths, with a true minus sign: ``−0.5``."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign: ``+3.1 points``."""
    return f"{signed(difference)} points"


def plural(count: int, noun: str, several: str = "") -> str:
    """Return ``1 query`` or ``12 queries``."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def sentence(text: str) -> str:
    """Return the text with a full stop, unless it already ends like a sentence."""
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (data_uri, percent, duration, size, number, words, signed, points, plural, sentence):
        environment.filters[function.__name__] = function
    return environment
